"""``modelserver why``: says how an engine, a model or a host stands, and why."""

from collections.abc import Iterable

import click

from modelserver.cli.output import seconds
from modelserver.cli.why_host import describe_host, describe_node
from modelserver.errors import ModelserverError
from modelserver.operations.status import EngineStatus, ModelStatus, Status, read_status
from modelserver.operations.words import clock, in_words
from modelserver.policy.health import memory
from modelserver.policy.orders import MOVE, PAUSE, in_force, orders_about
from modelserver.settings import load
from modelserver.store import Store, connect
from modelserver.store.fleet.alerts import open_alerts
from modelserver.store.fleet.availability import standings
from modelserver.store.fleet.control import (
    HEALTH_MEMORY,
    read_memory,
    read_waiting,
    read_wishes,
)
from modelserver.store.fleet.decisions import decisions_about
from modelserver.store.fleet.orders import orders
from modelserver.values import Order

#: What stands before an operator's order, by its kind.
LABELS = {PAUSE: "paused", MOVE: "moved"}
#: Width of the label before a value, in characters.
LABEL_WIDTH = 12


@click.command()
@click.argument("target", metavar="ENGINE|MODEL|HOST")
@click.option(
    "-n", "number", default=10, show_default=True, help="Number of decisions to show."
)
@click.option("--replay", is_flag=True, help="Say what would be decided today, too.")
def why(target: str, number: int, replay: bool) -> None:
    """Say how an ENGINE, a MODEL or a HOST stands, and what led to it.

    Decisions, of engines and models, come newest last, with the figures that they
    were made from.
    """
    settings = load()
    store = connect(settings)
    with store.reachable():
        found = read_status(store, settings)
        lines = _describe(store, found, target)
        if not lines:
            click.echo("\n".join(_host(store, found, target)))
            return
        click.echo("\n".join(lines))
        decisions = decisions_about(store, target, number)
        if replay:
            # Deciding again takes all of control, which is much to import.
            from modelserver.operations.replaying import replayed
        click.echo("\nDecisions, newest last:" if decisions else "\nNo decisions yet.")
        for decision in decisions:
            click.echo(in_words(decision))
            if replay:
                click.echo(replayed(store, decision))


def _describe(store: Store, found: Status, target: str) -> list[str]:
    now = found.at
    given = in_force(orders(store), now)
    for engine in found.engines:
        if engine.id == target:
            about = orders_about(given, engine.id, engine.model)
            health = memory.from_json(read_memory(store).get(HEALTH_MEMORY, ""))
            return _engine(store, found, engine, about, health)
    for model in found.models:
        if model.name == target:
            return _model(store, found, model, orders_about(given, model.name))
    if waits := read_waiting(store).get(target):
        return [f"{target} has no place", _line("waiting", waits)]
    return []


def _host(store: Store, found: Status, target: str) -> list[str]:
    lines = [_line(*each) for each in describe_host(found, target, open_alerts(store))]
    if not lines:
        names = [*(m.name for m in found.models), *(e.id for e in found.engines)]
        names += [*(h.name for h in found.hosts), *found.lost_hosts]
        raise ModelserverError(
            f"there is no engine, model or host {target}; there are: {', '.join(names)}"
        )
    return [f"host {target}", *lines]


def _engine(
    store: Store,
    found: Status,
    engine: EngineStatus,
    about: Iterable[Order],
    health: memory.HealthMemory,
) -> list[str]:
    state = f"{engine.state}" + ("" if engine.host_live else "?")
    head = f"{engine.id} ({engine.model} on host {engine.host}) is {state}"
    if engine.since:
        head += f" since {clock(engine.since)}, incarnation {engine.incarnation}"
    wish = read_wishes(store).get(engine.id)
    own = health.engines.get(engine.id)
    lines = [head, _line("reason", "; ".join(filter(None, (_said(engine),))))]
    # Of one that does not serve it would tell what was before.
    if own is not None and (engine.state.serves or own.reason):
        judged = f"{own.health} since {clock(own.since)}" if own.since else own.health
        lines.append(_line("health", judged + (f": {own.reason}" * bool(own.reason))))
        lines.append(_line("blocked", own.blocked))
    if wish is None:
        lines.append(_line("wanted", "no longer"))
    else:
        lines.append(_line("hold", wish.hold))
        lines.append(_line("degraded", wish.degraded))
    lines += [
        _line(f"node {each.node}", describe_node(each)) for each in engine.followers
    ]
    lines += [_order(order) for order in about]
    inflight = f"{engine.inflight} of {engine.limit}"
    if engine.inflight:
        inflight += f", the oldest for {seconds(engine.oldest_seconds)}"
    lines.append(_line("in flight", inflight))
    lines += [_backlog(found, engine.model)]
    lines.append(_line("waiting", read_waiting(store).get(engine.id, "")))
    return [line for line in lines if line]


def _said(engine: EngineStatus) -> str:
    notes = [engine.progress, engine.reason]
    notes += [f"to be restarted: {engine.stale}"] * bool(engine.stale)
    notes += [f"host {engine.host} does not report"] * (not engine.host_live)
    return "; ".join(filter(None, notes))


def _model(
    store: Store, found: Status, model: ModelStatus, about: Iterable[Order]
) -> list[str]:
    known = standings(store).get(model.name)
    head = f"{model.name} ({model.kind}) has {model.ready} ready of {model.wanted}"
    lines = [f"{head} wanted engines"]
    if known:
        standing = f"{known['standing']}: {known['reason']}"
        since = f", since {clock(known['since'])}" if known["since"] else ""
        lines.append(_line("standing", standing + since))
        if known["standing"] == "down":
            goes = f" to {known['fallback']}" * bool(known["fallback"])
            lines.append(_line("requests", known["then"] + goes))
    lines += [_order(order) for order in about]
    lines.append(_backlog(found, model.name))
    lines.append(_line("schedule", model.schedule))
    lines.append(_line("waiting", model.waiting_for))
    for engine in found.engines:
        if engine.model == model.name:
            state = f"{engine.state} on {engine.host}"
            said = f": {_said(engine)}" * bool(_said(engine))
            lines.append(_line(engine.id, state + said))
    return [line for line in lines if line]


def _backlog(found: Status, model: str) -> str:
    for each in found.models:
        if each.name == model and each.queue.backlog:
            return _line("backlog", f"{each.queue.backlog} requests of {model} wait")
    return _line("backlog", "none")


def _order(order: Order) -> str:
    until = f" until {clock(order.until)}" * bool(order.until)
    reason = f": {order.reason}" * bool(order.reason)
    label = LABELS.get(order.kind, "drained")
    to = f"to host {order.host} " * bool(order.host)
    text = f"{to}by {order.who} at {clock(order.at)}{until}{reason}"
    return _line(label, text)


def _line(label: str, value: str) -> str:
    return f"  {label:{LABEL_WIDTH}}{value}" if value else ""
