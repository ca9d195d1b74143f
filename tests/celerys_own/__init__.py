"""Celery's own integration tests, run against this project's pool and transport."""
