"""The fleets that `modelserver join` has made this machine a host of."""

import hashlib
from pathlib import Path

from modelserver.server_address import plain_url

#: The folder of the fleet files that the command writes, in the home.
JOINED = "joined"
#: What each of these files is called.
JOINED_FILE = "fleet.toml"
#: The file beside each of them with this host's name in that fleet.
NAME_FILE = "host"


def joined_file(home: Path, url: str) -> Path:
    """The fleet file of the fleet with this Redis, which need not be there."""
    digest = hashlib.sha256(without_password(url).encode()).hexdigest()[:8]
    return home / JOINED / digest / JOINED_FILE


def find_joined(home: Path, url: str) -> Path | None:
    """The fleet file of the fleet that this machine has joined, None for none.

    Without a ``url`` that says which Redis is meant, of the only one.
    """
    if url:
        file = joined_file(home, url)
        return file if file.is_file() else None
    files = list((home / JOINED).glob(f"*/{JOINED_FILE}"))
    return files[0] if len(files) == 1 else None


def is_joined(file: Path) -> bool:
    """Whether a fleet file was written by the command."""
    return file.name == JOINED_FILE and file.parent.parent.name == JOINED


def find_name(file: Path) -> str:
    """This host's name in the fleet of a joined file, "" where none is noted."""
    noted = file.with_name(NAME_FILE)
    return noted.read_text().strip() if noted.is_file() else ""


def without_password(url: str) -> str:
    """The URL as it may stand in a file that others read. Raises ValueError."""
    return plain_url(url).replace("://***@", "://", 1)
