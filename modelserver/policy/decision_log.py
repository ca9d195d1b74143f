"""What the decision log keeps of an action: the values that it was decided from. Pure.

All values are text. Of an engine that was judged they include the ``verdict`` in words,
its figures under the names of its fields, the ``health`` before and after, and the
verdict ``because`` of which it has that health.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict

from modelserver.policy.actions import Action, Alert, Relaunch, Treat, Want
from modelserver.policy.decide import Decision, Rules
from modelserver.policy.health.verdicts import Together, Verdict
from modelserver.policy.snapshot import Snapshot


def noteworthy(actions: Iterable[Action]) -> list[Action]:
    """The actions but for those that only move a limit or ask for canaries."""
    return [
        action for action in actions if not isinstance(action, Treat) or action.reason
    ]


def account(
    action: Action, snapshot: Snapshot, decision: Decision, rules: Rules, now: float
) -> dict[str, str]:
    """What an action was decided from, by the name of each value."""
    values = {
        "engine": action.spec.id if isinstance(action, Want) else action.engine,
        "action": type(action).__name__.lower(),
        "at": f"{now:.3f}",
    }
    hosts = ",".join(host.name for host in snapshot.hosts)
    match action:
        case Want(spec):
            old = snapshot.wishes.get(spec.id)
            values |= {
                "model": spec.model,
                "host": spec.host,
                "was_on": old.spec.host if old else "",
                "live_hosts": hosts,
            }
        case Relaunch(engine, incarnation, reason, _):
            values |= {"reason": reason, "incarnation": str(incarnation)}
            values |= _symptoms(engine, snapshot, rules)
            values |= _judgement(engine, snapshot, decision)
        case Treat(engine):
            values |= _treatment(action) | _symptoms(engine, snapshot, rules)
            values |= _judgement(engine, snapshot, decision)
        case Alert(about, reason):
            values |= {"reason": reason} | _judgement(about, snapshot, decision)
        case _:
            values |= {"reason": action.reason, "live_hosts": hosts}
    return values


def _treatment(action: Treat) -> dict[str, str]:
    values = {
        "reason": action.reason,
        "incarnation": str(action.incarnation),
        "limit": str(action.limit),
        "hold": action.hold,
        "degraded": action.degraded,
        "abort": str(action.abort or ""),
        "canary": str(action.canary or ""),
    }
    return {key: value for key, value in values.items() if value}


def _symptoms(engine: str, snapshot: Snapshot, rules: Rules) -> dict[str, str]:
    report = snapshot.engines.get(engine)
    if report is None:
        return {}  # No launcher has taken it up yet.
    values = {
        "model": report.model,
        "host": report.host,
        "alive_at": f"{report.alive_at:.3f}",
        "since": f"{report.since:.3f}",
        "hang_seconds": f"{rules.hang_seconds:g}",
    }
    load = snapshot.loads.get(engine)
    if load:
        values["inflight"] = str(load.inflight)
        values["oldest_seconds"] = f"{load.oldest_seconds:.1f}"
        values["idle_seconds"] = f"{load.idle_seconds:.1f}"
    return values


def _judgement(about: str, snapshot: Snapshot, decision: Decision) -> dict[str, str]:
    """The verdicts of this look about an engine or a model, and what followed."""
    values: dict[str, str] = {}
    for verdict in decision.verdicts:
        if about == (
            verdict.model if isinstance(verdict, Together) else verdict.engine
        ):
            values |= dict(_figures(verdict))
    after = decision.memory.engines.get(about)
    if after is None or snapshot.memory is None:
        return values
    before = snapshot.memory.engines.get(about)
    values["health"] = f"{before.health if before else 'unknown'} -> {after.health}"
    details = {
        "cause": after.cause,
        "because": after.reason,
        "blocked": after.blocked,
        "slowdown": f"{after.slowdown:.2f}" if after.slowdown != 1.0 else "",
    }
    return values | {key: value for key, value in details.items() if value}


def _figures(verdict: Verdict) -> Iterator[tuple[str, str]]:
    yield "verdict", verdict.text
    for name, value in asdict(verdict).items():
        if name in ("engine", "model", "incarnation"):
            continue
        if isinstance(value, tuple):
            yield name, ", ".join(f"{each:.3f}" for each in value)
        else:
            yield name, f"{value:.4g}" if isinstance(value, float) else str(value)
