"""``sglang`` with its API key from the environment, and with no open door.

SGLang takes a key by a flag only, which every user of the host could read in the list
of processes, and it logs all of its flags when it starts. So the key is added here,
inside the process, and taken out of what this process and its children write.

Its schedulers meet by torch's store, which has no password and listens on all
interfaces whatever its address is. Here it listens where it is looked for.
"""

import importlib
import io
import os
import socket
import sys
from typing import Any

KEY = os.environ.get("MODELSERVER_ENGINE_KEY", "")


class _Discreet(io.TextIOWrapper):
    """A stream that writes ``***`` where the key would stand."""

    def write(self, text: str) -> int:
        return super().write(text.replace(KEY, "***"))


def _hide_key() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        discreet = _Discreet(
            stream.buffer, stream.encoding, stream.errors, write_through=True
        )
        setattr(sys, name, discreet)


def _keep_store_on_loopback() -> None:
    try:
        distributed = importlib.import_module("torch.distributed")
        rendezvous = importlib.import_module("torch.distributed.rendezvous")
    except ImportError:
        return  # SGLang will say that torch is missing.

    class LoopbackStore(distributed.TCPStore):  # type: ignore[misc, name-defined]
        def __init__(self, *given: Any, **named: Any) -> None:
            host, port = named.get("host_name"), named.get("port")
            if host == "127.0.0.1" and port and named.get("is_master"):
                listener = socket.socket()
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((host, port))
                listener.listen(socket.SOMAXCONN)
                named.setdefault("master_listen_fd", listener.detach())
            super().__init__(*given, **named)

    distributed.TCPStore = rendezvous.TCPStore = LoopbackStore  # type: ignore[attr-defined]


# Not only in the main process: a spawned child imports this file as well.
if KEY:
    _hide_key()
_keep_store_on_loopback()

if __name__ == "__main__":
    from sglang.cli.main import main

    if KEY:
        sys.argv += ["--api-key", KEY]
    sys.exit(main())
