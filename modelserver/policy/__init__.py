"""Decisions as pure functions of values: no clock, no randomness, no Redis, no system.

``decide`` is the entry; ``placement`` says which engines the fleet wants, and where.
"""
