"""Who may come in: the password, sessions, and the tokens of forms. Pure.

A session is a signed cookie, so it outlives a restart of the page and ends with a new
password.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

#: The cookie of a session.
COOKIE = "modelserver_page"
#: A session ends after so many seconds.
SESSION_SECONDS = 12 * 3600
#: Wrong passwords that one address may send at once.
MOST_TRIES = 10.0
#: It may send one more after so many seconds.
TRY_SECONDS = 6.0
#: Addresses that are remembered at most; beyond that all share one count.
MOST_ADDRESSES = 1000
#: Rounds of the hash that makes the signing key of the password.
KEY_ROUNDS = 100_000


@dataclass(slots=True)
class _Tries:
    """What an address has left."""

    left: float = MOST_TRIES
    at: float = 0.0


@dataclass(slots=True)
class Door:
    """Checks passwords, sessions and tokens. ``now`` is in seconds since the epoch."""

    password: str = field(repr=False)
    _key: bytes = field(init=False, repr=False)
    _tries: dict[str, _Tries] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._key = hashlib.pbkdf2_hmac(
            "sha256", self.password.encode(), b"modelserver page", KEY_ROUNDS
        )

    def wait_seconds(self, address: str, now: float) -> float:
        """For how long no password of this address is looked at, 0 if one is."""
        tries = self._tries_of(address, now)
        return 0.0 if tries.left >= 1 else (1 - tries.left) * TRY_SECONDS

    def is_right(self, password: str, address: str, now: float) -> bool:
        """Whether this is the password; a wrong one costs the address a try."""
        given, own = password.encode(errors="replace"), self.password.encode()
        if hmac.compare_digest(given, own):
            return True
        self._tries_of(address, now).left -= 1
        return False

    def _tries_of(self, address: str, now: float) -> _Tries:
        if address not in self._tries and len(self._tries) >= MOST_ADDRESSES:
            self._forget(lambda tries: now - tries.at > MOST_TRIES * TRY_SECONDS)
        if address not in self._tries and len(self._tries) >= MOST_ADDRESSES:
            address = ""
        tries = self._tries.setdefault(address, _Tries(at=now))
        gained = max(0.0, now - tries.at) / TRY_SECONDS
        tries.left, tries.at = min(MOST_TRIES, tries.left + gained), now
        return tries

    def _forget(self, is_over: Callable[[_Tries], bool]) -> None:
        for address in [name for name, each in self._tries.items() if is_over(each)]:
            del self._tries[address]

    # Sessions.

    def open_session(self, now: float) -> str:
        """The cookie of a new session."""
        text = f"{int(now) + SESSION_SECONDS}.{secrets.token_urlsafe(12)}"
        return f"{text}.{self._sign('session', text)}"

    def is_open(self, session: str, now: float) -> bool:
        """Whether this cookie is one of ours and not over."""
        text, _, mark = session.rpartition(".")
        ends, _, _ = text.partition(".")
        if not _same(mark, self._sign("session", text)):
            return False
        return int(ends) > now

    def token(self, session: str) -> str:
        """What forms of a session carry, which no other site can know."""
        return self._sign("form", session)

    def is_token(self, token: str, session: str) -> bool:
        """Whether a form comes from a page of this session."""
        return _same(token, self.token(session))

    def _sign(self, use: str, text: str) -> str:
        told = f"{use}:{text}".encode(errors="replace")
        return hmac.new(self._key, told, hashlib.sha256).hexdigest()


def _same(given: str, own: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), own.encode())
