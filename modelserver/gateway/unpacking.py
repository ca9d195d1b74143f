"""Bodies that came packed: by what, and what they hold, within bounds. Pure."""

import zlib
from collections.abc import Sequence

from modelserver.gateway.faults import Fault, Refused

#: How a client may pack a body: by which windows zlib reads it.
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
#: Other names of these, and of a body that is as it is.
_OTHER_NAMES = {"x-gzip": "gzip", "identity": "", "": ""}


def find_packing(headers: Sequence[str]) -> str:
    """By what a body is packed, "" for nothing, from its headers Content-Encoding.

    Raises Refused for what nobody here can unpack.

    >>> find_packing([]), find_packing(["GZIP "]), find_packing(["identity, deflate"])
    ('', 'gzip', 'deflate')
    """
    named = [each.strip().lower() for value in headers for each in value.split(",")]
    found = [each for each in (_OTHER_NAMES.get(name, name) for name in named) if each]
    if not found:
        return ""
    if len(found) == 1 and found[0] in _WINDOWS:
        return found[0]
    told = ", ".join(headers)[:64]
    text = (
        f"the body's Content-Encoding {told!r} is not known here; send it as "
        f"{' or '.join(_WINDOWS)}, or as it is"
    )
    raise Refused(Fault(415, text, code="unsupported_media_type"))


def unpack(packed: bytes | bytearray, packing: str, most: int) -> bytes | None:
    """What a packed body holds, None if that is more than ``most`` bytes.

    Blocks, without holding others up. Raises Refused for what is damaged.
    """
    windows = _WINDOWS[packing]
    if packing == "deflate" and (packed[:1] or b"x")[0] & 15 != 8:
        windows = -zlib.MAX_WBITS  # Some send it without zlib's own head.
    stream = zlib.decompressobj(windows)
    try:
        found = stream.decompress(packed, most + 1)
    except zlib.error as error:
        raise _damaged(packing, str(error)) from None
    if len(found) > most:
        return None
    if not stream.eof:
        raise _damaged(packing, "it ends before its end")
    if stream.unused_data:
        raise _damaged(packing, "something stands after its end")
    return found


def _damaged(packing: str, why: str) -> Refused:
    text = f"the body is no {packing}: {why}; pack it again, or send it as it is"
    return Refused(Fault(400, text, code="invalid_body"))
