"""The API keys of this host's engines: a file for each, which its owner can read.

A launcher writes a key before the engine starts; whoever asks an engine of this host
finds it by the engine's address. No key is in the store, in a log or on a command line.
"""

import os
import secrets
from pathlib import Path
from urllib.parse import quote

#: The folder of keys in the run folder.
FOLDER = "keys"


class Keyring:
    """Keys by address, such as ``127.0.0.1:30000``; a file is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}

    def key(self, address: str) -> str:
        """The key of the engine at an address, "" if it has none."""
        known = self._known.get(address)
        return self.reread(address) if known is None else known

    def reread(self, address: str) -> str:
        """The key as it stands in the file now: an engine gets one at each start."""
        try:
            key = self._path(address).read_text()
        except OSError:
            key = ""
        self._known[address] = key
        return key

    def renew(self, address: str) -> str:
        """Write a new random key for the engine that will listen there."""
        # In hexadecimal: a key that begins with "-" would pass for an option.
        key = secrets.token_hex(32)
        self.write(address, key)
        return key

    def write(self, address: str, key: str) -> None:
        """Write a key, whole or not at all."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(address)
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(unfinished, flags, 0o600), "w") as file:
            file.write(key)
        os.replace(unfinished, path)
        self._known[address] = key

    def forget(self, address: str) -> None:
        """Remove a key; nothing happens if there is none."""
        self._known.pop(address, None)
        self._path(address).unlink(missing_ok=True)

    def _path(self, address: str) -> Path:
        return self._folder / quote(address, safe=":")
