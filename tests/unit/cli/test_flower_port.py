"""Flower's port, looked at before it starts."""

import socket

import pytest

from modelserver.cli.flower_port import refuse_taken_port
from modelserver.errors import ModelserverError


def test_a_port_that_is_taken_is_named_with_another():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for args, environ in (
            ((f"--port={port}",), {}),
            (("--port", str(port)), {}),
            ((), {"FLOWER_PORT": str(port)}),
        ):
            with pytest.raises(ModelserverError, match=f"say --port={port + 1}"):
                refuse_taken_port(args, environ)
        refuse_taken_port(("--unix-socket=/tmp/x", f"--port={port}"), {})
    refuse_taken_port((f"--port={port}",), {})
