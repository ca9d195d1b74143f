"""Flower's settings; FLOWER_* environment variables win over them."""

import os

address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
# Looking, not acting: a shutdown button that anybody on this machine could press.
read_only = True
max_tasks = 10_000
