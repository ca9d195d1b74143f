"""The one password of the fleet page and Flower, and the file that keeps it."""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from modelserver.errors import ConfigurationError
from modelserver.settings import Settings

#: The file in MODELSERVER_HOME, unless MODELSERVER_PASSWORD_FILE names another.
PASSWORD_FILE = "password"
#: Random bytes of a password that is made here.
PASSWORD_BYTES = 15
#: Flower asks for a name, too.
FLOWER_USER = "modelserver"
#: A password that people choose has at least so many characters.
FEWEST_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Password:
    """The password, and where it comes from."""

    text: str = field(repr=False)
    #: In words, for whoever wants to look it up.
    where: str
    #: Whether it was made just now.
    is_new: bool = False

    def told(self, is_terminal: bool) -> str:
        """What is said of it: itself once, to whoever sits at a terminal."""
        if self.is_new and is_terminal:
            return f"password {self.text} (kept in {self.where})"
        return f"password in {self.where}"


def find_password(settings: Settings) -> Password:
    """The password of the environment, of the file that it names, or of our own file.

    Our own file is made where it is missing. Raises ConfigurationError.
    """
    if settings.password:
        return _checked(Password(settings.password, "MODELSERVER_PASSWORD"))
    path = settings.password_file or settings.home / PASSWORD_FILE
    try:
        is_new = settings.password_file is None and _make(path)
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the password file {path} cannot be read or made ({error}); correct it, "
            "or MODELSERVER_PASSWORD_FILE, or set MODELSERVER_PASSWORD"
        ) from error
    return _checked(Password(text, str(path), is_new))


def _checked(password: Password) -> Password:
    if len(password.text) < FEWEST_CHARACTERS:
        raise ConfigurationError(
            f"the password in {password.where} has fewer than {FEWEST_CHARACTERS} "
            "characters; choose a longer one"
        )
    if not password.text.isascii():
        raise ConfigurationError(
            f"the password in {password.where} has characters beyond ASCII, which "
            "Flower cannot compare; choose another one"
        )
    return password


def _make(path: Path) -> bool:
    """Write a new password whole; False if one is there, also of somebody quicker."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(unfinished, flags, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(PASSWORD_BYTES) + "\n")
    try:
        os.link(unfinished, path)
    except FileExistsError:
        return False
    finally:
        unfinished.unlink()
    return True
