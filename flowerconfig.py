"""Flower's settings; FLOWER_* environment variables win over them."""

import os

from modelserver.page.password import FLOWER_USER, find_password
from modelserver.settings import load

address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
# Without it, anybody on this machine could shut workers down.
read_only = True
max_tasks = 10_000
# That of the fleet page, unless people are told apart in another way.
if not os.environ.get("FLOWER_AUTH"):
    basic_auth = os.environ.get("FLOWER_BASIC_AUTH", "").split(",")
    if basic_auth == [""]:
        basic_auth = [f"{FLOWER_USER}:{find_password(load()).text}"]
