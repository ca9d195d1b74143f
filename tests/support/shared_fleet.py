"""One worker and its engines that all tests of a module share, healthy for each."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery.app.control import Inspect

from modelserver.messaging.wire import CONTROL_QUEUE
from modelserver.store.fleet.engines import remove_engine
from modelserver.store.fleet.workers import read_backlogs
from modelserver.values import EngineState
from tests.engine.process import EngineProcess
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import (
    OTHER_MODEL,
    PATIENCE,
    FleetSite,
    answers,
    open_fleet,
)

#: The shared engines, and the model that each one serves.
MODEL_OF = {"writer-0": "writer", "vectors-0": "vectors", "other-0": "other"}


@contextmanager
def open_shared_fleet(folder: Path) -> Iterator[FleetSite]:
    """One worker, and an engine for each of three models."""
    valkey = ValkeyProcess(folder).start()
    with open_fleet(folder, valkey.url, OTHER_MODEL) as site:
        for name, model in MODEL_OF.items():
            site.engine(name, model=model)
        site.worker()
        eventually(lambda: queues(site) >= set(MODEL_OF.values()), PATIENCE)
        yield site
    valkey.stop()


def restore(site: FleetSite) -> None:
    """Make the shared engines healthy and ready; wait until nothing is queued."""
    for name, model in MODEL_OF.items():
        site.engines[name].fault()
        site.report(name, model=model)
    for name in set(site.engines) - set(MODEL_OF):
        remove_engine(site.store, name)
        site.engines.pop(name).kill()
    eventually(lambda: not _waiting(site), PATIENCE)


def _waiting(site: FleetSite) -> int:
    """Requests that are queued, held or parked.

    The queues before and after: what is taken from one meanwhile is held, and what a
    worker gives back is queued.
    """
    queues = [CONTROL_QUEUE, *MODEL_OF.values()]

    def queued() -> int:
        return sum(read_backlogs(site.store, queues).values()) + site.parked()

    return queued() + site.held() + queued()


def prompts(name: str, number: int) -> list[str]:
    """So many prompts that are told from others by their name."""
    return [f"{name} {place}" for place in range(number)]


def queues(fleet: FleetSite) -> set[str]:
    """The queues that the worker consumes from, as ``celery inspect`` tells."""
    found = inspect_of(fleet).active_queues()[fleet.workers[0].name]
    return {queue["name"] for queue in found}


def inspect_of(fleet: FleetSite) -> Inspect:
    """``celery inspect`` of the worker, which ends with its reply."""
    name = fleet.workers[0].name
    return fleet.app.control.inspect(destination=[name], timeout=30)


def block_writer(fleet: FleetSite, limit: int) -> EngineProcess:
    """The writer's engine, hanging, with a limit that the worker knows."""
    engine = fleet.engines["writer-0"]
    engine.fault(hang=True)
    fleet.report("writer-0", EngineState.STARTING)
    eventually(lambda: "writer" not in queues(fleet), PATIENCE)
    fleet.report("writer-0", limit=limit)
    eventually(lambda: "writer" in queues(fleet), PATIENCE)
    return engine


def is_asked(fleet: FleetSite, engine: EngineProcess) -> bool:
    """Whether the worker asks this engine of the other model."""
    answers(fleet.send(prompts("hello", 4), kwargs={"model": "other"}))
    return bool(engine.stats()["received"])
