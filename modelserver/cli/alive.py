"""``modelserver alive``: whether a part works, by the exit status: for probes."""

import urllib.request
from http.client import HTTPException

import click

from modelserver.errors import ModelserverError
from modelserver.operations.alive import find_fault
from modelserver.settings import load
from modelserver.store import connect

#: The parts that report to the store, under this host's name.
PARTS = ("launcher", "worker", "beat", "batches")
#: A part has so many seconds to answer.
PATIENCE_SECONDS = 5.0


@click.command()
@click.argument("part", metavar="PART")
def alive(part: str) -> None:
    """Exit with status 0 if PART works on this host, else with 1 and the reason.

    PART is launcher, worker, beat, batches, or the URL of one that listens, such as
    http://127.0.0.1:8080/health.
    """
    if part.startswith(("http://", "https://")):
        # On this host, whatever http_proxy says.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            opener.open(part, timeout=PATIENCE_SECONDS).close()
        except (OSError, HTTPException) as error:
            raise ModelserverError(f"{part} does not answer: {error}") from error
        return
    if part not in PARTS:
        raise click.BadParameter(f"must be a URL or one of {', '.join(PARTS)}")
    settings = load()
    store = connect(settings, timeout=PATIENCE_SECONDS)
    if fault := find_fault(store, settings, part):
        raise ModelserverError(fault)
