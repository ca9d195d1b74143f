"""Why a server cannot be used: the fact and the remedy, read from redis-py's errors."""

import ssl
from collections.abc import Iterator

from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from modelserver.server_address import plain_url, read_address
from modelserver.store.server.unfit import find_fault

#: Where a URL is written.
WHERE = "redis.url in the fleet file or MODELSERVER_REDIS_URL"
#: Where user and password stand.
_LOGIN = f"correct {WHERE}, or the password in the file of redis.password_file"
#: How the replies begin that refuse a user or a password.
_REFUSED = ("NOAUTH", "WRONGPASS", "invalid username-password")
#: What is heard where only one side speaks TLS.
_ONLY_ONE_SPEAKS_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
#: What is heard where the server wants a certificate of its client as well.
_WANTS_CERTIFICATE = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "UNKNOWN_CA")


def rights(prefix: str, database: int = 0) -> str:
    """The rights of a Redis user that every part of a fleet can work with.

    A pattern that is subscribed to must stand there as it is: those of the workers'
    bells, and of Celery's remote control and events.
    """
    events = f"{prefix}/{database}.celeryev/"
    patterns = (
        f"{prefix}bell:*",
        f"{prefix}/{database}.celery.pidbox",
        f"{events}*",
        f"{events}worker.*",
    )
    channels = " ".join(f"&{pattern}" for pattern in (f"{prefix}*", *patterns))
    return f"~{prefix}* {channels} +@all -@admin -@dangerous +info"


def is_about_rights(error: BaseException) -> bool:
    """Whether a server refused what its user has no right to."""
    # In a script, it is an error like any other.
    in_script = isinstance(error, ResponseError) and "ACL failure" in str(error)
    return in_script or isinstance(error, NoPermissionError)


def describe(error: BaseException, url: str, prefix: str = "ms:") -> str:
    """One sentence: which server, what it did, what to do about it."""
    server = f"Redis at {plain_url(url)}"
    database = read_address(url).database if url else 0
    needed = rights(prefix, database)
    for each in _chain(error):
        told = _find_refusal(each, server, needed)
        told = told or find_fault(each, server, database, WHERE)
        if told or (told := _find_tls_fault(each, server)):
            return told
    if isinstance(error, ResponseError):
        return f"{server} refuses this ({error}); correct {WHERE}"
    hint = _tls_hint(str(error), url.startswith("rediss:"))
    if "Timeout reading" in str(error):
        return (
            f"{server} takes connections and does not answer ({error}); see whether it "
            f"hangs or is stopped, or whether {WHERE} leads to something else{hint}"
        )
    return f"{server} does not answer ({error}); start it, or correct {WHERE}{hint}"


def _tls_hint(said: str, tls: bool) -> str:
    """What silence may mean where one side speaks TLS and the other does not."""
    if tls and "Timeout connecting" in said:
        return "; where the server speaks no TLS, write redis://"
    if tls and "closed by server" in said:
        return "; it may want ssl_certfile=...&ssl_keyfile=... in the URL"
    if "closed by server" in said or "reset by peer" in said:
        return "; where the server speaks TLS, write rediss://"
    return ""


def _find_refusal(error: BaseException, server: str, needed: str) -> str | None:
    if is_about_rights(error):
        return (
            f"{server} does not permit its user what is needed ({error}); have its "
            f"administrator say: ACL SETUSER name {needed}"
        )
    if isinstance(error, AuthenticationError) or str(error).startswith(_REFUSED):
        return f"{server} refuses the user or the password ({error}); {_LOGIN}"
    return None


def _find_tls_fault(error: BaseException, server: str) -> str | None:
    said = str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {server} is not valid here "
            f"({error.verify_message}); {_certificate_remedy(error)}"
        )
    if any(word in said for word in _WANTS_CERTIFICATE):
        return (
            f"{server} does not take this client's certificate, or wants one ({said}); "
            "add ssl_certfile=...&ssl_keyfile=... to the URL"
        )
    if any(word in said for word in _ONLY_ONE_SPEAKS_TLS):
        return (
            f"{server} speaks TLS where the URL does not say so, or the other way "
            f"round ({said}); use rediss:// for TLS and redis:// without"
        )
    # An end without a goodbye is a server that is gone.
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return (
            f"TLS with {server} cannot begin ({said}); correct the files that "
            "ssl_ca_certs, ssl_certfile and ssl_keyfile of the URL name"
        )
    return None


def _certificate_remedy(error: ssl.SSLCertVerificationError) -> str:
    if "mismatch" in error.verify_message:
        return "use a name that it is made out to, or add ssl_check_hostname=false"
    if "expired" in error.verify_message or "not yet" in error.verify_message:
        return "renew it, or correct this host's clock"
    return (
        "add ssl_ca_certs=/path/of/its/authority.pem to the URL, or the authority to "
        "this host's certificates"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that it came from, each once."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__, each.__context__]
