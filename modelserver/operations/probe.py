"""Probes: the benchmark message sent to engines side by side, and timed.

A probe bypasses the queue, so it competes with the requests that an engine has. What
real traffic measures (``status``) is the better guide under load.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from modelserver.engine_client import ask, open_session
from modelserver.engine_protocol import (
    COMPLETIONS_PATH,
    EMBEDDINGS_PATH,
    EngineFault,
    RequestFault,
)
from modelserver.errors import EngineError, ModelUnavailableError, UnknownModelError
from modelserver.fleet.sections import ProbeSection
from modelserver.messaging.catalogue import Catalogue
from modelserver.operations.status import read_catalogue
from modelserver.settings import Settings
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.hosts import read_hosts
from modelserver.store.server.state import Store
from modelserver.values import EngineReport, Kind

#: A probe that is not answered within this time has failed, in seconds.
PROBE_LIMIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of an engine."""

    engine: str
    model: str
    url: str
    #: How long it took, an error included.
    seconds: float
    #: The text of a sound answer; for embeddings how many dimensions it has.
    answer: str = ""
    #: Why there is no sound answer; "" if there is one.
    error: str = ""


async def latency(
    store: Store,
    settings: Settings,
    model: str | None = None,
    seconds: float = PROBE_LIMIT_SECONDS,
) -> tuple[Probe, ...]:
    """Probe every ready engine, of one model or of all, at the same time.

    Raises UnknownModelError, StoreUnreachableError.
    """
    models, engines = await asyncio.to_thread(_read, store, settings)
    if model is not None:
        _kind(models, model)
    chosen = [e for e in _ready(engines) if model in (None, e.model)]
    async with _probing(chosen, models, settings, seconds) as probes:
        return tuple(await asyncio.gather(*probes))


async def fastest(
    store: Store, settings: Settings, model: str, seconds: float = PROBE_LIMIT_SECONDS
) -> Probe:
    """The ready engine of a model that answers first; the other probes are cancelled.

    Raises UnknownModelError, ModelUnavailableError without a ready engine, EngineError
    if every probe fails.
    """
    models, engines = await asyncio.to_thread(_read, store, settings)
    _kind(models, model)
    chosen = [engine for engine in _ready(engines) if engine.model == model]
    if not chosen:
        raise ModelUnavailableError(_why_none(engines, model))
    failed = []
    async with _probing(chosen, models, settings, seconds) as probes:
        for done in asyncio.as_completed(probes):
            probe = await done
            if not probe.error:
                return probe
            failed.append(f"{probe.engine}: {probe.error}")
    raise EngineError(f'no engine of "{model}" answered its probe: {"; ".join(failed)}')


def _read(store: Store, settings: Settings) -> tuple[Catalogue, list[EngineReport]]:
    with store.reachable():
        models = read_catalogue(store, settings)
        live = {host.name for host in read_hosts(store)}
        engines = read_engines(store).values()
        return models, [engine for engine in engines if engine.host in live]


def _kind(models: Catalogue, model: str) -> Kind:
    entry = models.entry(model)
    if entry is None:
        names = ", ".join(sorted(each.name for each in models.models)) or "none"
        raise UnknownModelError(f'the fleet has no model "{model}"; models: {names}')
    return entry.kind


def _ready(engines: Iterable[EngineReport]) -> list[EngineReport]:
    return [engine for engine in engines if engine.serves]


def _why_none(engines: Iterable[EngineReport], model: str) -> str:
    states = [
        f"{engine.id} is {engine.state}" + (f" ({engine.reason})" * bool(engine.reason))
        for engine in engines
        if engine.model == model
    ]
    there = "; ".join(states) or "no launcher that lives reports one"
    return f'model "{model}" has no ready engine: {there}; see `modelserver status`'


@asynccontextmanager
async def _probing(
    engines: Iterable[EngineReport],
    models: Catalogue,
    settings: Settings,
    seconds: float,
) -> AsyncIterator[list[asyncio.Task[Probe]]]:
    """A running probe for each engine; at the end what still runs is cancelled."""
    message = settings.fleet.probe
    async with open_session(keys=settings.keyring()) as session:
        probes = []
        for engine in engines:
            entry = models.entry(engine.model)
            kind = entry.kind if entry else Kind.COMPLETION
            probe = _probe(session, engine, kind, message, seconds)
            probes.append(asyncio.create_task(probe))
        try:
            yield probes
        finally:
            for task in probes:
                task.cancel()
            await asyncio.gather(*probes, return_exceptions=True)


async def _probe(
    session: aiohttp.ClientSession,
    engine: EngineReport,
    kind: Kind,
    message: ProbeSection,
    seconds: float,
) -> Probe:
    path, body = _request(engine.model, kind, message)
    answer = error = ""
    began = time.monotonic()
    try:
        answer = _answer(kind, await ask(session, engine.url + path, body, seconds))
    except TimeoutError:
        error = f"no answer within {seconds:g} s"
    except (EngineFault, RequestFault) as fault:
        error = str(fault)
    except (KeyError, IndexError, TypeError) as fault:
        error = f"an answer of the wrong shape ({fault!r})"
    took = time.monotonic() - began
    return Probe(engine.id, engine.model, engine.url, took, answer, error)


def _request(
    model: str, kind: Kind, message: ProbeSection
) -> tuple[str, dict[str, Any]]:
    if kind is Kind.EMBEDDING:
        return EMBEDDINGS_PATH, {"model": model, "input": message.embedding}
    body = {"prompt": message.completion, "max_tokens": message.max_tokens}
    return COMPLETIONS_PATH, {"model": model, "temperature": 0, **body}


def _answer(kind: Kind, response: dict[str, Any]) -> str:
    if kind is Kind.EMBEDDING:
        return f"{len(response['data'][0]['embedding'])} dimensions"
    return str(response["choices"][0]["text"])
