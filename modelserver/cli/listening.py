"""Where a command listens."""

import socket
from typing import Any

from modelserver.errors import ModelserverError


def listen(address: str, port: int, **more: Any) -> socket.socket:
    """A socket that listens there; ``more`` is as in ``socket.create_server``.

    Raises ModelserverError.
    """
    if not 0 <= port < 1 << 16:
        raise ModelserverError(f"there is no port {port}; name one below 65536")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, **more)
    except OSError as error:
        raise ModelserverError(
            f"cannot listen at {address}:{port} ({error}); name another with --port "
            "or --address"
        ) from error


def url_of(sock: socket.socket) -> str:
    """The URL of what listens there."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
