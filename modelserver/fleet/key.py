"""The key of a fleet, which its hosts have and Redis has not.

A fleet says which programs run on every host. So the fleet in force is signed with
this key, and a host that has it obeys no other; nor an older one than it has obeyed.
"""

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelserver.errors import ConfigurationError

_log = logging.getLogger(__name__)

#: The variable that holds the key; it goes before the file.
KEY_VARIABLE = "MODELSERVER_FLEET_KEY"
#: The variable that names a file with the key.
KEY_FILE_VARIABLE = "MODELSERVER_FLEET_KEY_FILE"
#: The file in the run folder that holds the key.
KEY_FILE = "fleet.key"
#: The file in the run folder with the last version that this host has obeyed.
VERSION_FILE = "fleet.version"
#: Characters of a key at least: what it signs can be read, and keys be guessed from it.
LEAST_KEY_LENGTH = 32
#: Where a signature stands in the fleet's JSON.
SIGNATURE = "signature"


@dataclass(frozen=True, slots=True)
class FleetKey:
    """The key of one fleet on this host, and what was signed with it."""

    #: The run folder.
    folder: Path
    #: The prefix of the fleet's keys in Redis: what is signed for one fleet is not
    #: taken for another's.
    prefix: str
    #: The key that the environment gives, "" for none.
    given: str = field(default="", repr=False)

    @property
    def file(self) -> Path:
        """Where the key is kept, unless the environment gives it."""
        return self.folder / KEY_FILE

    @property
    def source(self) -> str:
        """Where this host has its key, or would have it."""
        return KEY_VARIABLE if self.given else str(self.file)

    def read(self) -> str:
        """The key, "" where this host has none. Raises ConfigurationError."""
        key = self.given
        if not key:
            try:
                mode = self.file.stat().st_mode
                key = self.file.read_text().strip()
            except FileNotFoundError:
                return ""
            except OSError as error:
                raise ConfigurationError(
                    f"the fleet's key cannot be read: {error}; give the file to the "
                    "user who runs modelserver here"
                ) from error
            if mode & 0o077:
                raise ConfigurationError(
                    f"others may read or write the fleet's key; run: chmod 600 "
                    f"{self.file}"
                )
        if len(key) < LEAST_KEY_LENGTH:
            raise ConfigurationError(
                f"the fleet's key in {self.source} has {len(key)} characters, which "
                f"can be guessed; use {LEAST_KEY_LENGTH} or more, for example of "
                "`openssl rand -hex 32`, on every host"
            )
        return key

    def make(self) -> None:
        """Make a key for a fleet that has none; one that is there by now stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.file.with_name(f"{KEY_FILE}.{os.getpid()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(unfinished, flags, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        try:
            os.link(unfinished, self.file)
        except FileExistsError:
            pass
        finally:
            unfinished.unlink()

    def sign(self, values: Mapping[str, Any]) -> str:
        """The signature of a fleet's values; "" without a key."""
        key = self.read()
        return self._signature(key, values) if key else ""

    def _signature(self, key: str, values: Mapping[str, Any]) -> str:
        signed = {name: value for name, value in values.items() if name != SIGNATURE}
        text = json.dumps(signed, sort_keys=True, separators=(",", ":"))
        message = f"modelserver fleet {self.prefix}\n{text}"
        return hmac.new(key.encode(), message.encode(), hashlib.sha256).hexdigest()

    def find_refusal(self, values: Mapping[str, Any]) -> str:
        """Why this host does not obey a fleet, and the remedy; "" where it does."""
        key, signature = self.read(), values.get(SIGNATURE)
        apply = "run `modelserver apply` on this host"
        if not key and not signature:
            return ""
        if not key:
            return (
                f"is signed, and this host has no key; copy {KEY_FILE} from the run "
                f"folder of the host that applied it to {self.file} (mode 0600), or "
                f"set {KEY_VARIABLE}; if it is lost, write 32 random characters there "
                "and run `modelserver apply`"
            )
        if not signature:
            return (
                "is not signed, and this host obeys only what is signed with the key "
                f"in {self.source}; if you know who applied it, {apply}"
            )
        expected = self._signature(key, values)
        if not hmac.compare_digest(str(signature).encode(), expected.encode()):
            return (
                f"is not signed with the key in {self.source}; if you know who applied "
                f"it, {apply}, or give both hosts the same key"
            )
        last = self.last_version()
        if values["version"] < last:
            return f"is older than version {last}, which this host has obeyed; {apply}"
        return ""

    def last_version(self) -> int:
        """The last signed version that this host has obeyed, 0 for none."""
        file = self.folder / VERSION_FILE
        try:
            return int(file.read_text() or 0)
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"the last version of the fleet cannot be read from {file}: {error}; "
                "give it to the user who runs modelserver here, or remove it"
            ) from error

    def note_version(self, version: int) -> None:
        """Obey nothing older from now on. Does nothing without a key.

        On a full disk nothing is noted, and a version before may come back.
        """
        if not self.read() or version <= self.last_version():
            return
        try:
            self._write_version(version)
        except OSError as error:
            _log.warning("version=%d of the fleet was not noted: %s", version, error)

    def _write_version(self, version: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT
        file = os.open(self.folder / VERSION_FILE, flags, 0o600)
        with os.fdopen(file, "r+") as note:
            # Launcher and `apply` may note at once; freed as the file is closed.
            fcntl.flock(note, fcntl.LOCK_EX)
            if version > int(note.read() or 0):
                note.seek(0)
                note.write(str(version))
