"""The port that Flower is to listen on, looked at before it starts."""

import socket
from collections.abc import Mapping, Sequence

from modelserver.errors import ModelserverError

#: Flower's own choice.
FLOWER_PORT = 5555
#: Where flowerconfig.py has it listen.
FLOWER_ADDRESS = "127.0.0.1"


def refuse_taken_port(args: Sequence[str], environ: Mapping[str, str]) -> None:
    """Raises ModelserverError where Flower could not listen."""
    port = _given("port", args, environ) or str(FLOWER_PORT)
    address = _given("address", args, environ) or FLOWER_ADDRESS
    if not port.isdigit() or _given("unix_socket", args, environ):
        return  # Flower says itself what is wrong, or listens elsewhere.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, int(port)))
        except OSError as error:
            raise ModelserverError(
                f"Flower cannot listen on {address}:{port} ({error.strerror}); end the "
                f"program that has it, or say --port={int(port) + 1}"
            ) from error


def _given(name: str, args: Sequence[str], environ: Mapping[str, str]) -> str:
    """What an option of Flower's says, "" where nothing does."""
    for place, arg in enumerate(args):
        for form in (f"--{name}", f"--{name.replace('_', '-')}"):
            if arg == form and place + 1 < len(args):
                return args[place + 1]
            if arg.startswith(f"{form}="):
                return arg.partition("=")[2]
    return environ.get(f"FLOWER_{name.upper()}", "")
