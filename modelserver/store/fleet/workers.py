"""What the live workers report, and the requests that wait for them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from modelserver.measured import EngineLoad
from modelserver.store.scripts import queues as queue_scripts
from modelserver.store.server.state import Store
from modelserver.store.server.versions import read_each

#: Submitters of each priority that are counted at most.
MOST_SUBMITTERS = 100
#: What a worker of another version need not say.
UNTOLD: Mapping[str, Any] = {"node": "", "host": "", "pid": 0, "held": 0}


def read_workers(store: Store) -> dict[str, dict[str, Any]]:
    """The reports of the workers whose lease lives, by worker."""
    names = sorted(store.run("SMEMBERS", store.keys.workers))
    if not names:
        return {}
    values = store.run("MGET", *[store.keys.worker(name) for name in names])
    found = {name: value for name, value in zip(names, values, strict=True) if value}
    return read_each(store, "report of", found, _read_report)


def _read_report(text: str) -> dict[str, Any]:
    report = json.loads(text)
    loads = {
        engine: (int(inflight), float(oldest), float(idle))
        for engine, (inflight, oldest, idle, *_) in report.get("loads", {}).items()
    }
    return {**UNTOLD, **report, "loads": loads}


def read_worker_hosts(store: Store) -> tuple[str, ...]:
    """The hosts with a worker whose lease lives."""
    hosts = {str(report.get("host", "")) for report in read_workers(store).values()}
    return tuple(sorted(hosts - {""}))


def read_loads(store: Store) -> dict[str, EngineLoad]:
    """What the live workers have in flight, summed by engine."""
    return loads_of(read_workers(store))


def loads_of(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, EngineLoad]:
    """The same by the reports of the workers."""
    total: dict[str, EngineLoad] = {}
    for report in workers.values():
        for engine, (inflight, oldest, idle) in report["loads"].items():
            seen = total.get(engine, EngineLoad(0, 0.0, idle))
            total[engine] = EngineLoad(
                seen.inflight + inflight,
                max(seen.oldest_seconds, oldest),
                min(seen.idle_seconds, idle),
            )
    return total


def read_backlog(store: Store, queue: str) -> int:
    """Requests that wait in a queue, all priorities."""
    return int(store.run_script(queue_scripts.DEPTH, store.keys.queue(queue)))


def read_backlogs(store: Store, queues: Sequence[str]) -> dict[str, int]:
    """The same of several queues in one round trip."""
    with store.client.pipeline(transaction=False) as pipe:
        for queue in queues:
            lists = store.keys.queue(queue)
            pipe.eval(queue_scripts.DEPTH, len(lists), *lists)
        return dict(zip(queues, map(int, pipe.execute()), strict=True))


def read_submitters(store: Store, queue: str) -> dict[str, int]:
    """The messages that wait in a queue by their submitter, the most first.

    Those of nobody in particular are under "".
    """
    lists = store.keys.queue(queue)
    reply = store.run_script(queue_scripts.BY_SUBMITTER, lists, MOST_SUBMITTERS)
    found: Counter[str] = Counter()
    for name, length in zip(reply[::2], reply[1::2], strict=True):
        found[str(name)] += int(length)
    return dict(found.most_common())


def read_oldest(store: Store, queues: Sequence[str]) -> dict[str, float | None]:
    """Since when the oldest request of each queue waits, by its submitter's clock.

    None where nothing waits, or nothing says since when. Only what comes next is looked
    at: what was given back may stand before something older.
    """
    with store.client.pipeline(transaction=False) as pipe:
        for queue in queues:
            lists = store.keys.queue(queue)
            pipe.eval(queue_scripts.NEXT_SENT, len(lists), *lists, MOST_SUBMITTERS)
        replies = pipe.execute()
    return {
        queue: min(map(float, sent), default=None)
        for queue, sent in zip(queues, replies, strict=True)
    }


def read_queued(store: Store, queue: str) -> tuple[dict[str, int], ...]:
    """By priority, the most urgent first: the messages that wait by their submitter."""
    with store.client.pipeline(transaction=False) as pipe:
        for each in store.keys.queue(queue):
            pipe.eval(queue_scripts.BY_SUBMITTER, 1, each, MOST_SUBMITTERS)
        replies = pipe.execute()
    return tuple(
        {str(name): int(n) for name, n in zip(reply[::2], reply[1::2], strict=True)}
        for reply in replies
    )


def read_answers(store: Store) -> dict[str, int]:
    """Totals: results stored, and late or repeated ones that were refused."""
    values = store.run("HGETALL", store.keys.answers)
    return {key: int(value) for key, value in values.items()}
