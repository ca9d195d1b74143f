"""Who runs this program."""

import getpass
import os


def find_user() -> str:
    """The name of this user; in a container its number may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
