"""Which URLs of images, sounds and videos engines may be asked to fetch. Pure.

Engines fetch what a request names, with the rights of their host: SGLang reads files as
well. Whoever may send requests must not reach what only the host can.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

#: Names of a host itself, and of what tells cloud machines their secrets.
OWN_NAMES = frozenset({"localhost", "metadata", "metadata.google.internal"})
#: Addresses of the same kind that look like any other.
METADATA_ADDRESSES = frozenset({"100.100.100.200", "168.63.129.16", "fd00:ec2::254"})


def find_forbidden_media(messages: Any) -> str:
    """What is wrong with a URL in the messages of a chat, "" for nothing.

    Does not look names up, so a name that leads to an inner address passes.

    >>> part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/secret"}}
    >>> find_forbidden_media([{"role": "user", "content": [part]}])[:48]
    'image_url must not lead to "127.0.0.1", which en'
    """
    for key, url in _urls(messages):
        if problem := _find_problem(url):
            return f"{key} {problem}"
    return ""


def _urls(messages: Any) -> Iterator[tuple[str, str]]:
    for message in _objects(messages):
        for part in _objects(message.get("content")):
            for key, value in part.items():
                url = value.get("url") if isinstance(value, Mapping) else value
                if key.endswith("_url") and isinstance(url, str):
                    yield key, url


def _objects(values: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(values, (list, tuple)):
        yield from (each for each in values if isinstance(each, Mapping))


def _find_problem(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return "is no URL; send http, https or data"
    if parts.scheme == "data":
        return ""
    if parts.scheme not in ("http", "https") or not host or "\\" in url:
        begins = f"{url[:20]!r}"
        return f"must begin with http://, https:// or data:, not with {begins}"
    if host in OWN_NAMES or _is_inner(host):
        return (
            f'must not lead to "{host}", which engines reach and you may not; send '
            "the content itself as a data: URL"
        )
    return ""


def _is_inner(host: str) -> bool:
    with contextlib.suppress(OSError, UnicodeError):
        # As system libraries read it: 127.1, 2130706433 and 0x7f000001 are addresses.
        host = socket.inet_ntoa(socket.inet_aton(host))
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.endswith(".localhost")
    inner = getattr(address, "ipv4_mapped", None) or address
    return (
        inner.is_loopback
        or inner.is_link_local
        or inner.is_unspecified
        or str(inner) in METADATA_ADDRESSES
    )
