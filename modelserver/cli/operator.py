"""Who runs a command."""

import getpass
import os


def find_operator() -> str:
    """The name of this user; in a container the number may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
