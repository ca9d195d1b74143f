"""One meaning of a Redis URL for every library that reads it."""

import ssl
from pathlib import Path

import pytest

from modelserver.fleet.file import Fleet, make_fleet
from modelserver.fleet.sections import RedisSection
from modelserver.server_address import plain_url, read_address


@pytest.mark.parametrize("spelled", ["required", "REQUIRED", "CERT_REQUIRED", ""])
def test_a_certificate_is_checked_unless_the_url_says_not_to(spelled: str):
    url = "rediss://h" + (f"?ssl_cert_reqs={spelled}" if spelled else "")
    tls = read_address(url).tls
    assert tls == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}


@pytest.mark.parametrize("spelled", ["none", "None", "CERT_NONE"])
def test_without_a_check_there_is_no_check_of_the_name(spelled: str):
    tls = read_address(f"rediss://h?ssl_cert_reqs={spelled}").tls
    assert tls == {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}


@pytest.mark.parametrize(
    ("url", "celery"),
    [
        ("redis://h", "redis://h:6379/0"),
        ("redis://h:7/3", "redis://h:7/3"),
        ("redis://h?db=3", "redis://h:6379/3"),
        ("redis://:p%40%2Fw@[::1]:7/1", "redis://:p%40%2Fw@[::1]:7/1"),
        ("rediss://ms:pw@h/2?ssl_cert_reqs=none", "rediss://ms:pw@h:6379/2"),
        ("unix:///run/r.sock", "redis+socket:///run/r.sock"),
        ("unix:///run/r.sock?db=2", "redis+socket:///run/r.sock?virtual_host=2"),
        ("redis+socket://:pw@/run/r.sock", "redis+socket://:pw@/run/r.sock"),
    ],
)
def test_celery_is_told_the_same_place(url: str, celery: str):
    address = read_address(url)
    assert address.celery_url() == celery
    again = read_address(address.celery_url())
    assert again.connection_arguments() | address.tls == address.connection_arguments()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("rediss://h?ssl_cert_reqs=maybe", "must be required, optional or none"),
        ("rediss://h?ssl_check_hostname=perhaps", "must be true or false"),
        ("rediss://h?ssl_cert_req=none", "did you mean ssl_cert_reqs?"),
        ("rediss://h?ssl_ca_certs=/gone.pem", "/gone.pem, which is not on this host"),
        ("redis://h?ssl_cert_reqs=none", "is for rediss:// URLs"),
        ("redis://h?timeout=3", "timeout is no parameter"),
        ("redis://h/first", '"first" is no number of a database'),
        ("redis://:se/cret@h", "write # / ? @ : [ ] in a password as %23"),
        ("redis://:se#cret@h", "write # / ? @ : [ ] in a password as %23"),
        ("redis://:12/cret@h", "write # / ? @ : [ ] in a password as %23"),
        ("redis://:12?cret@h", "write # / ? @ : [ ] in a password as %23"),
        ("redis://:se[cret@h", "write # / ? @ : [ ] in a password as %23"),
        ("unix://run/r.sock", "three slashes"),
        ("h:6379", "must be redis://"),
        ("redis:h", "must be redis://"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_the_password(url: str, told: str):
    with pytest.raises(ValueError, match=r".") as it:
        read_address(url)
    assert told in str(it.value)
    assert "cret" not in str(it.value)


def test_a_key_without_its_certificate_is_refused(tmp_path: Path):
    key = tmp_path / "client.key"
    key.touch()
    with pytest.raises(ValueError, match="needs ssl_certfile"):
        read_address(f"rediss://h?ssl_keyfile={key}")


def test_messages_hold_no_password():
    url = "rediss://u:secret@h:1/0?ssl_password=secret&ssl_cert_reqs=none"
    assert plain_url(url) == "rediss://***@h:1/0?ssl_cert_reqs=none"


def test_a_question_mark_in_a_password_shows_nothing_of_it():
    assert plain_url("redis://:se?cret@h:1/0?db=2") == "redis://***@h:1/0?db=2"
    assert plain_url("redis://:s?e=cret@h") == "redis://***@h"
    # Somebody forgot how a URL begins.
    assert plain_url("me:secret@h:1/0") == "***@h:1/0"
    assert plain_url("secret@h") == "***@h"
    url = "rediss://h?ssl_ca_certs=/a@b.pem&ssl_check_hostname=no"
    assert plain_url(url) == url


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MODELSERVER_REDIS_URL", "")
    monkeypatch.setenv("MODELSERVER_RULES_HANG_SECONDS", "")
    fleet = make_fleet("", {"redis": {"url": "redis://near"}})
    assert fleet.redis.url == "redis://near"
    assert fleet.rules.hang_seconds == 60
    assert Fleet(redis=RedisSection(url="")).redis.url == "embedded"


def test_sentinels_are_named_with_the_group_that_they_watch():
    url = "sentinel://me:pw@[::1]:8,h1, h2:7,[::2]/main/2?sentinel_password=other"
    address = read_address(url)
    assert address.sentinels is not None
    assert address.sentinels.addresses == (
        ("::1", 8),
        ("h1", 26379),
        ("h2", 7),
        ("::2", 26379),
    )
    assert address.sentinels.service == "main"
    assert address.sentinels.login == {"password": "other"}
    assert address.connection_arguments() == {
        "sentinels": address.sentinels,
        "username": "me",
        "password": "pw",
        "db": 2,
    }
    assert plain_url(url) == "sentinel://***@[::1]:8,h1, h2:7,[::2]/main/2"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sentinel://h1:26379", "names the group"),
        ("sentinel://h1:x/main", "cannot be told apart"),
        ("sentinel://h1,h2,/main", "a comma too many"),
        ("sentinel://:pw@h1,:pw@h2/main", "cannot be told apart"),
        ("sentinel://h/main?ssl_keyfile=k", "ssl_keyfile is for rediss://"),
        ("redis://h?sentinel_password=x", "sentinel_password is for sentinel://"),
    ],
)
def test_a_sentinel_url_that_is_wrong_is_refused_in_words(url: str, said: str):
    with pytest.raises(ValueError, match=said):
        read_address(url)
