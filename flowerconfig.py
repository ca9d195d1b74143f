"""Flower's settings; FLOWER_* environment variables win over them."""

import os

address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
# Without it, anybody on this machine could shut workers down.
read_only = True
max_tasks = 10_000
