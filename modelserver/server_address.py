"""The URL of a Redis server: one meaning for redis-py, kombu, Celery and Flower.

Each of them reads other spellings of one URL, and takes other defaults. So it is read
here, once, and each is told what it means in its own way.
"""

import difflib
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

#: Every scheme, and the one that it means.
_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "redis+socket": "unix",
    "sentinel": "sentinel",
    "redis+sentinel": "sentinel",
}
#: How a server's certificate is checked, as a URL may spell it, in small letters.
_CHECKS = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}
_TRUTHS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
#: Parameters that name a file or folder.
_PATHS = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
#: Parameters of rediss://.
_TLS = ("ssl_cert_reqs", "ssl_check_hostname", *_PATHS, "ssl_password")
#: Parameters of sentinel://: how the sentinels themselves are logged in at.
_SENTINEL = ("sentinel_username", "sentinel_password")
#: Where sentinels listen, unless the URL says otherwise.
_SENTINEL_PORT = 26379
#: The parameters of each scheme that has some of its own.
_OWN = {"rediss": _TLS, "sentinel": _SENTINEL}
#: Parameters of every scheme: the number of the database.
_DATABASE = ("db", "virtual_host")
#: How parameters begin that are shown to nobody.
_SECRET = ("ssl_password", "sentinel_password")
#: The argument of our connections, and the option of our transport, for `Sentinels`.
SENTINELS = "sentinels"
_UNREADABLE = (
    "the URL's host and port cannot be told apart from its password; "
    "write # / ? @ : [ ] in a password as %23 %2F %3F %40 %3A %5B %5D"
)


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Who knows where the primary of a group of servers is."""

    #: Host and port of each.
    addresses: tuple[tuple[str, int], ...]
    #: The group's name.
    service: str
    #: redis-py's ``username`` and ``password`` for the sentinels themselves.
    login: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server listens, and how it is to be spoken to."""

    #: "redis", "rediss", "unix" or "sentinel".
    scheme: str
    #: Of "sentinel" that of the first one.
    host: str = ""
    port: int = 6379
    #: The socket's path, for "unix" only.
    path: str = ""
    database: int = 0
    username: str = ""
    password: str = ""
    #: redis-py's ``ssl_`` arguments, for "rediss" only.
    tls: Mapping[str, Any] = field(default_factory=dict)
    #: Who knows the primary, and by what name, for "sentinel" only.
    sentinels: Sentinels | None = None

    @property
    def has_password(self) -> bool:
        """Whether there is a password in the URL, of whatever kind."""
        login = self.sentinels.login if self.sentinels else {}
        return bool(self.password or "ssl_password" in self.tls or "password" in login)

    def connection_arguments(self) -> dict[str, Any]:
        """What redis-py's connections are made with."""
        where: dict[str, Any] = {"host": self.host, "port": self.port}
        if self.scheme == "unix":
            where = {"path": self.path}
        if self.sentinels:
            where = {SENTINELS: self.sentinels}
        who = {"username": self.username, "password": self.password}
        given = {name: value for name, value in who.items() if value}
        return {**where, **given, "db": self.database, **self.tls}

    def transport_options(self) -> dict[str, Any]:
        """What Celery's broker, and Flower, must know beside the URL."""
        if self.sentinels is None:
            return {}
        login = {"sentinel_kwargs": dict(self.sentinels.login)}
        return {
            SENTINELS: self.sentinels,
            "master_name": self.sentinels.service,
            **login,
        }

    def celery_url(self) -> str:
        """As Celery, kombu and Flower take it; TLS is told beside it, by ``tls``."""
        who = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@"
        who = "" if who == ":@" else who
        if self.scheme == "unix":
            number = f"?virtual_host={self.database}" if self.database else ""
            return f"redis+socket://{who}{quote(self.path)}{number}"
        # Of sentinels Flower asks the first one, by options of the transport.
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{who}{host}:{self.port}/{self.database}"


def read_address(url: str) -> ServerAddress:
    """What a URL means. Raises ValueError, which says what to write instead."""
    spelled, login, place, tail = _cut(url.strip())
    scheme = _SCHEMES.get(spelled.lower())
    if scheme is None or "://" not in url:
        raise ValueError(
            f'"{plain_url(url)}" must be redis://host:port/db, rediss://host:port/db, '
            "sentinel://host:port,host:port/group/db or unix:///path?db=0"
        )
    several = scheme == "sentinel"
    places = [each.strip() for each in place.split(",")] if several else [place]
    # urlsplit takes an address in brackets only where that is the whole place.
    parts = _split(scheme, login, places[0], tail)
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    _refuse_unknown(scheme, parameters)
    path = unquote(parts.path)
    number = parameters.get("db") or parameters.get("virtual_host") or ""
    if scheme == "unix":
        where: dict[str, Any] = {"path": _socket_path(unquote(parts.netloc), path)}
    elif scheme == "sentinel":
        group, _, digits = path.strip("/").partition("/")
        number, found = digits or number, _sentinels(places, group, parameters)
        host, port = found.addresses[0]
        where = {"host": host, "port": port, "sentinels": found}
    else:
        number = path.strip("/") or number
        where = {"host": unquote(parts.hostname or "localhost"), "port": _port(parts)}
    return ServerAddress(
        scheme=scheme,
        database=_database(number.strip("/")),
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=_tls(parameters) if scheme == "rediss" else {},
        **where,
    )


def plain_url(url: str) -> str:
    """The URL without its passwords, for messages."""
    place, _, query = url.partition("?")
    parts = query.split("&") if query else []
    kept = [part for part in parts if not part.startswith(_SECRET)]
    if any("@" in part and not part.startswith(_PATHS) for part in kept):
        # A password holds a ? that should have been written as %3F.
        place, kept = f"{place}?{'&'.join(kept)}", []
    head, at, tail = place.rpartition("@")
    scheme, named, _ = head.partition("://")
    shown = f"{scheme}{named}***@{tail}" if named else f"***@{tail}" if at else place
    return f"{shown}?{'&'.join(kept)}" if kept else shown


def with_password(url: str, password: str) -> str:
    """The URL with a password where it has none.

    >>> with_password("redis://host/0", "a/b"), with_password("redis://me@host", "x")
    ('redis://:a%2Fb@host/0', 'redis://me:x@host')
    """
    scheme, login, places, tail = _cut(url)
    user, _, own = login.partition(":")
    if own or "://" not in url:
        return url
    return f"{scheme}://{user}:{quote(password, safe='')}@{places}{tail}"


def _cut(url: str) -> tuple[str, str, str, str]:
    """Scheme, login, place or places, and what follows them."""
    scheme, _, rest = url.partition("://")
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    login, _, places = netloc.rpartition("@")
    return scheme, login, places, rest.removeprefix(netloc)


def _split(scheme: str, login: str, place: str, tail: str) -> SplitResult:
    try:
        parts = urlsplit(f"{scheme}://{login}@{place}{tail}")
    except ValueError:
        raise ValueError(_UNREADABLE) from None
    stray = parts.query.partition("=")[0]
    stray += parts.path if scheme != "unix" else ""
    stray += login if scheme == "sentinel" else ""
    if parts.fragment or "@" in stray:
        raise ValueError(_UNREADABLE)
    return parts


def _refuse_unknown(scheme: str, parameters: Mapping[str, str]) -> None:
    known = (*_DATABASE, *_OWN.get(scheme, ()))
    for name in parameters:
        if name in known:
            continue
        for other, own in _OWN.items():
            if name in own:
                raise ValueError(
                    f"{name} is for {other}:// URLs; this one is {scheme}://"
                )
        close = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        raise ValueError(f"{name} is no parameter of a {scheme}:// URL; {advice}")


def _port(parts: SplitResult) -> int:
    try:
        return parts.port or 6379
    except ValueError:
        # Without the library's own words, which may hold a part of the password.
        raise ValueError(_UNREADABLE) from None


def _sentinels(
    places: list[str], group: str, parameters: Mapping[str, str]
) -> Sentinels:
    if not group:
        raise ValueError(
            "a sentinel:// URL names the group of servers after the sentinels, such as "
            "sentinel://host:26379,host:26379/mymaster/0"
        )
    if places[1:] and not all(places):
        raise ValueError("a sentinel:// URL has a comma too many between its sentinels")
    try:
        each = [urlsplit(f"//{place}") for place in places]
        addresses = [
            (one.hostname or "localhost", one.port or _SENTINEL_PORT) for one in each
        ]
    except ValueError:
        raise ValueError(_UNREADABLE) from None
    login = {
        name.removeprefix("sentinel_"): parameters[name]
        for name in _SENTINEL
        if parameters.get(name)
    }
    return Sentinels(tuple(addresses), group, login)


def _socket_path(netloc: str, path: str) -> str:
    if netloc.rpartition("@")[2] or path in ("", "/"):
        raise ValueError("a socket's URL is unix:///path: three slashes, whole path")
    return path


def _database(number: str) -> int:
    if number and not number.isdecimal():
        raise ValueError(f'"{number}" is no number of a database; write /0')
    return int(number or 0)


def _tls(parameters: Mapping[str, str]) -> dict[str, Any]:
    """redis-py's arguments. Checks the certificate and the name unless told not to."""
    check = parameters.get("ssl_cert_reqs") or "required"
    spelled = check.lower().removeprefix("cert_")
    if spelled not in _CHECKS:
        raise ValueError(
            f'ssl_cert_reqs is "{check}"; it must be required, optional or none'
        )
    named = parameters.get("ssl_check_hostname") or "true"
    if named.lower() not in _TRUTHS:
        raise ValueError(f'ssl_check_hostname is "{named}"; it must be true or false')
    checks_name = _TRUTHS[named.lower()] and spelled != "none"
    tls: dict[str, Any] = {
        "ssl_cert_reqs": _CHECKS[spelled],
        "ssl_check_hostname": checks_name,
    }
    for name in (*_PATHS, "ssl_password"):
        if value := parameters.get(name):
            tls[name] = value if name == "ssl_password" else str(_existing(name, value))
    if "ssl_keyfile" in tls and "ssl_certfile" not in tls:
        raise ValueError("ssl_keyfile needs ssl_certfile, the certificate of that key")
    return tls


def _existing(name: str, value: str) -> Path:
    path = Path(os.path.expanduser(value))
    if not path.exists():
        raise ValueError(f"{name} names {path}, which is not on this host; correct it")
    return path
