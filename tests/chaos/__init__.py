"""Fault runs against real processes: ``python -m tests.chaos [NAME]``."""
