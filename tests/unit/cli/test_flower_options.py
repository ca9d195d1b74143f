"""What Flower is told, looked at before it starts."""

import socket

import pytest

from modelserver.cli.flower_options import (
    find_basic_login,
    refuse_taken_port,
    tell_login,
)
from modelserver.errors import ModelserverError
from modelserver.page.password import Password

PASSWORD = Password("a heron in the reeds", "/home/you/password")


def test_a_port_that_is_taken_is_named_with_the_remedy():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for args, environ in (
            ((f"--port={port}",), {}),
            (("--port", str(port)), {}),
            ((), {"FLOWER_PORT": str(port)}),
        ):
            with pytest.raises(ModelserverError, match=f":{port} .* with --port"):
                refuse_taken_port(args, environ)
        refuse_taken_port(("--unix-socket=/tmp/x", f"--port={port}"), {})
    refuse_taken_port((f"--port={port}",), {})


def test_a_port_that_none_can_have_is_told():
    with pytest.raises(ModelserverError, match="no port 99999"):
        refuse_taken_port(("--port=99999",), {})


@pytest.mark.parametrize(
    ("args", "environ", "told", "login"),
    [
        ((), {}, "user modelserver, password in ", f"modelserver:{PASSWORD.text}"),
        ((), {"FLOWER_BASIC_AUTH": "a:b,c:d"}, "FLOWER_BASIC_AUTH", "a:b"),
        ((), {"FLOWER_AUTH": ".*@example.org"}, "FLOWER_AUTH", ""),
        (("--auth=.*",), {"FLOWER_AUTH": ".*"}, "FLOWER_AUTH", ""),
    ],
)
def test_who_comes_in_is_told_as_it_is(
    args: tuple[str, ...], environ: dict[str, str], told: str, login: str
):
    assert told in tell_login(PASSWORD, False, args, environ)
    assert find_basic_login(PASSWORD, environ) == login
