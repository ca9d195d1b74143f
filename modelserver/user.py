"""Who runs this program."""

import getpass
import os
from pathlib import Path

from modelserver.errors import ConfigurationError


def find_user() -> str:
    """The name of this user; in a container its number may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def find_login() -> str:
    """The same for programs, which take a number where there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def find_home() -> Path:
    """This user's home folder. Raises ConfigurationError where there is none."""
    try:
        return Path.home()
    except RuntimeError:
        raise ConfigurationError(
            f"user {os.getuid()} has no home folder, and HOME is not set; set HOME, or "
            "MODELSERVER_HOME to a folder of yours"
        ) from None
