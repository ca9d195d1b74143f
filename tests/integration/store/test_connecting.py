"""TLS with real certificates, users with few rights, sockets: every part connects."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from modelserver.errors import StoreUnreachableError
from modelserver.store.connections import open_async
from modelserver.store.state import connect_to
from modelserver.store.trouble import rights
from tests.engine.openai_api import answer_text
from tests.support.processes import ValkeyProcess
from tests.support.secure_redis import Authority, tls_in_front_of
from tests.support.workers import PATIENCE, answers, open_fleet

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


def test_tls_that_the_url_does_not_name_is_told(port: int):
    with pytest.raises(StoreUnreachableError, match=r"write rediss://"):
        connect_to(f"redis://127.0.0.1:{port}", "ms:")


def test_requests_go_through_tls(port: int, authority: Authority, tmp_path: Path):
    url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority.certificate}"
    with open_fleet(tmp_path, url) as fleet:
        fleet.engine("writer-0")
        fleet.worker()
        result = fleet.complete.delay("by TLS")
        assert result.get(timeout=PATIENCE) == answer_text("by TLS")
        assert "pong" in fleet.celery("inspect", "ping", "--timeout", "3")


def test_a_user_with_the_documented_rights_can_do_everything(
    valkey: ValkeyProcess, tmp_path: Path
):
    admin = redis.Redis.from_url(valkey.url, decode_responses=True)
    rule = rights("ms:").split()
    admin.execute_command("ACL", "SETUSER", "ms", "on", ">p@ss/word#1", *rule)
    admin.execute_command("ACL", "LOG", "RESET")
    url = f"redis://ms:p%40ss%2Fword%231@127.0.0.1:{valkey.port}/0"
    with admin, open_fleet(tmp_path, url) as fleet:
        fleet.engine("writer-0")
        fleet.worker()
        texts = ["as a user", "with few rights"]
        assert answers(fleet.send(texts)) == [answer_text(text) for text in texts]
        assert "pong" in fleet.celery("inspect", "ping", "--timeout", "3")
        refused = [
            (entry["reason"], entry["object"])
            for entry in admin.execute_command("ACL", "LOG")
        ]
        assert refused == []
