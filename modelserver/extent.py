"""How much a JSON body holds, counted before it is parsed. Pure.

A parser holds Python, and with it the gateway's loop, for as long as it takes: by
values, not by bytes. So what a body may hold is counted first, in pieces between which
others come to their turns.
"""

#: Most lists and objects in a body, most texts and names, and most values of any kind:
#: none of them holds a parser for more than a tenth of a second.
MOST_CONTAINERS, MOST_TEXTS, MOST_VALUES = 200_000, 200_000, 2_000_000
#: A body of so many bytes is not counted: it cannot hold a parser for long.
SHORT_BYTES = 100_000
#: Bytes that are counted at a time.
PIECE_BYTES = 1 << 18


def find_excess(content: bytes | bytearray) -> str:
    r"""What a body has too many of, "" for nothing. What its texts say does not count.

    >>> find_excess(b'{"prompt": [1, 2]}')
    ''
    >>> find_excess(b'["\\"", ' + b"1," * 3_000_000)
    '2,000,000 values'
    >>> find_excess(b'["\\"' + b"1," * 3_000_000 + b'"]')
    ''
    """
    if len(content) <= SHORT_BYTES:
        return ""
    containers = quotes = commas = start = 0
    while start < len(content):
        piece = bytes(content[start : start + PIECE_BYTES])
        slashes = len(piece) - len(piece.rstrip(b"\\"))
        if slashes % 2 and start + len(piece) < len(content):
            piece = piece[:-1]  # It stays with what it hides.
        start += len(piece)
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        # Every other part lies outside texts.
        outside = b"".join(parts[quotes % 2 :: 2])
        quotes += len(parts) - 1
        containers += outside.count(b"[") + outside.count(b"{")
        commas += outside.count(b",")
        if containers > MOST_CONTAINERS:
            return f"{MOST_CONTAINERS:,} lists and objects"
        if quotes > 2 * MOST_TEXTS:
            return f"{MOST_TEXTS:,} texts and names"
        if commas >= MOST_VALUES:
            return f"{MOST_VALUES:,} values"
    return ""
