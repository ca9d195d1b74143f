"""``modelserver status`` and ``models``: show the fleet as it is."""

import sys
import time

import click
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from modelserver.cli.output import FittingTable, console, print_json, seconds, table
from modelserver.inventory import GIB
from modelserver.operations.status import (
    EngineStatus,
    ModelStatus,
    QueueStatus,
    Status,
    read_status,
)
from modelserver.operations.words import notes_of, ordered
from modelserver.settings import load
from modelserver.store import connect
from modelserver.values import EngineState, Order

#: How often ``--watch`` reads the fleet, in seconds.
STATUS_WATCH_SECONDS = 2.0
#: How many letters of the reason why an engine is held are shown beside its state.
HOLD_WIDTH = 30
#: What engines are shown without first where a screen is narrow.
SPARE_COLUMNS = ("inc", "errors", "p95", "requests", "since", "host", "tokens/s", "p50")
#: The same of models.
SPARE_OF_MODELS = ("cut off", "kind", "workers", "wanted")
#: The same of GPUs.
SPARE_OF_GPUS = ("name", "temp", "util")
#: Colours of engines' states; others have none.
STATE_COLOURS = {
    EngineState.READY: "green",
    EngineState.DEGRADED: "yellow",
    EngineState.FATAL: "red",
    EngineState.BACKOFF: "red",
    EngineState.DRAINING: "yellow",
    EngineState.STARTING: "yellow",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--watch", is_flag=True, help="Show the fleet again every 2 seconds.")
def status(as_json: bool, watch: bool) -> None:
    """Show models, engines, hosts, workers and what waits.

    p50, p95 and tokens/s come from each engine's last 64 requests; "cut off" counts
    the answers that max_tokens ended. In the JSON: at,
    steered_at, steered_by, models, engines, hosts, workers, control.
    """
    settings = load()
    store = connect(settings)
    found = read_status(store, settings)
    if as_json:
        print_json(found.to_json())
    elif not watch:
        console().print(render(found))
    elif not sys.stdout.isatty():
        while True:
            console().print(render(found))
            sys.stdout.flush()
            time.sleep(STATUS_WATCH_SECONDS)
            found = read_status(store, settings)
    else:
        with Live(render(found), console=console(), screen=True) as live:
            while True:
                time.sleep(STATUS_WATCH_SECONDS)
                live.update(render(read_status(store, settings)), refresh=True)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def models(as_json: bool) -> None:
    """Show which models there are, their ready engines and what waits for them."""
    settings = load()
    found = read_status(connect(settings), settings)
    if as_json:
        print_json(found.to_json()["models"])
    else:
        console().print(_models(found))


def render(found: Status) -> Group:
    """The whole status as tables."""
    tables: list[Table | FittingTable] = [_engines(found), _models(found)]
    tables.append(_hosts(found))
    tables += [_gpus(found)] * any(host.gpus for host in found.hosts)
    tables.append(_workers(found))
    return Group(
        *(line for each in tables for line in (each, "")),
        *map(_order, found.orders),
        *_runs(found),
        *_memory(found),
        *_alerts(found),
        _fleet(found),
        _control(found),
    )


def _engines(found: Status) -> FittingTable:
    numbers = ("inc", "in-flight", "p50", "p95", "tokens/s", "requests", "errors")
    columns = ("model", "engine", "host", "state", *numbers, "since", "reason")
    made = table("Engines", *columns, numbers=numbers)
    for engine in found.engines:
        measured = engine.traffic
        rate = measured.tokens_per_second
        made.add_row(
            engine.model,
            engine.id,
            ", ".join(engine.hosts),
            _state(engine),
            str(engine.incarnation),
            f"{engine.inflight}/{engine.limit}" if engine.limit else "-",
            seconds(measured.p50_seconds),
            seconds(measured.p95_seconds),
            "-" if rate is None else f"{rate:.1f}",
            str(engine.requests),
            str(engine.errors),
            seconds(found.at - engine.since) if engine.since else "-",
            escape(engine_reason(engine)),
        )
    return FittingTable(made, SPARE_COLUMNS)


def _state(engine: EngineStatus) -> str:
    if not engine.host_live:
        return f"[dim]{engine.state}?[/dim]"
    if engine.hold:
        return f"[yellow]{engine.state} (held: {escape(_short(engine.hold))})[/yellow]"
    colour = STATE_COLOURS.get(engine.state)
    return f"[{colour}]{engine.state}[/{colour}]" if colour else str(engine.state)


def _short(hold: str) -> str:
    cut = hold[: HOLD_WIDTH - 3].rstrip() + "..."
    return hold if len(hold) <= HOLD_WIDTH else cut


def engine_reason(engine: EngineStatus) -> str:
    """Why an engine is in its state, and what else is to be known of it."""
    notes = [engine.progress, engine.reason]
    if engine.hung_seconds:
        silence = f"no token for {engine.hung_seconds} s"
        notes.append(f"{silence} with {engine.inflight} in flight")
    if engine.hold:
        notes.append(f"gets nothing new: {engine.hold}")
    if engine.stale:
        notes.append(f"to be restarted: {engine.stale}")
    if engine.incarnation and not engine.host_live:
        notes.append(f"host {engine.host} does not report")
    if not engine.wanted:
        notes.append("wanted no longer")
    return "; ".join(note for note in notes if note)


def _models(found: Status) -> FittingTable:
    numbers = ("ready", "wanted", "backlog", "workers", "cut off")
    made = table("Models", "model", "kind", *numbers, "note", numbers=numbers)
    for model in found.models:
        queue = model.queue
        counts = (model.ready, model.wanted, queue.backlog, queue.workers)
        cells = (*map(str, (*counts, model.cut_off)), model_note(model))
        made.add_row(model.name, model.kind, *cells)
    return FittingTable(made, SPARE_OF_MODELS)


def model_note(model: ModelStatus) -> str:
    """What is to be known of a model, as rich's markup."""
    waits = _waits(model.queue)
    place = f"[yellow]{escape(model.waiting_for)}[/yellow]" * bool(model.waiting_for)
    notes = [place, f"schedule {model.schedule}" * bool(model.schedule)]
    if model.standing == "down":
        notes = [f"[red]down: {escape(model.because)}[/red]", waits]
    elif not model.ready:
        notes.insert(0, f"[red]no ready engine{'; ' * bool(waits)}{waits}[/red]")
    elif not model.queue.workers:
        notes.insert(0, "[yellow]no worker on a host with a ready engine[/yellow]")
    elif any(model.queue.submitters):
        notes.append(waits)
    return "; ".join(filter(None, notes))


def _waits(queue: QueueStatus) -> str:
    """How many wait, and from whom the most come, where that is known."""
    if not queue.backlog:
        return ""
    name, most = next(iter(queue.submitters.items()), ("", 0))
    whose = f", {most} of them from {escape(name)}" if name else ""
    return f"{queue.backlog} wait{whose}"


def _hosts(found: Status) -> Table:
    """Drivers are shown where there are GPUs; without any, doctor tells of them."""
    drivers = any(host.gpus for host in found.hosts)
    columns = ("host", "GPUs", "launcher", *["driver"] * drivers)
    made = table("Hosts", *columns, numbers=("GPUs",))
    for host in found.hosts:
        cells = (host.name, str(len(host.gpus)), f"pid {host.pid}")
        made.add_row(*cells, *[escape(host.driver or "-")] * drivers)
    return made


def _gpus(found: Status) -> FittingTable:
    numbers = ("memory", "util", "temp")
    columns = ("host", "gpu", "name", *numbers, "held by", "fault")
    made = table("GPUs", *columns, numbers=numbers)
    for host in found.hosts:
        for gpu in host.gpus:
            notes = escape(", ".join(notes_of(gpu)))
            fault = f"[red]{escape(gpu.fault)}[/red]" if gpu.fault else notes
            made.add_row(
                host.name,
                gpu.label.removeprefix("gpu "),
                escape(gpu.name or "-"),
                f"{gpu.used / GIB:.1f}/{gpu.total / GIB:.1f} GiB" if gpu.total else "-",
                "-" if gpu.utilization is None else f"{gpu.utilization:.0%}",
                "-" if gpu.temperature is None else f"{gpu.temperature} °C",
                escape(gpu.holders or "-"),
                fault,
            )
    return FittingTable(made, SPARE_OF_GPUS)


def _workers(found: Status) -> Table:
    numbers = ("held", "in-flight")
    made = table("Workers", "worker", "host", *numbers, "serves", numbers=numbers)
    for worker in found.workers:
        counts = (str(worker.held), str(worker.inflight))
        serves = ", ".join(worker.models) or "-"
        made.add_row(worker.name, worker.host, *counts, serves)
    return made


def _order(order: Order) -> str:
    return f"[yellow]{escape(ordered(order))}[/yellow]"


def _runs(found: Status) -> list[str]:
    runs = found.runs
    counts = {"running": runs.running, "waiting": runs.waiting, "paused": runs.paused}
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if not told:
        return []
    if runs.is_stuck:
        none = "no process `modelserver batches` runs"
        return [f"[red]Runs: {told}; {none}[/] (see `modelserver batch list`)"]
    return [f"Runs: {told} (see `modelserver batch list`)"]


def _memory(found: Status) -> list[str]:
    if not found.memory_short:
        return []
    short = f"{found.memory_short}: new requests are refused"
    return [f"[red]the memory of Redis is short[/] ({short}; see `modelserver doctor`)"]


def _alerts(found: Status) -> list[str]:
    number = f"{found.alerts} alert" + "s" * (found.alerts != 1)
    stand = "stands" if found.alerts == 1 else "stand"
    return [f"[red]{number} {stand}: modelserver alerts[/red]"] * bool(found.alerts)


def _fleet(found: Status) -> str:
    fleet = found.fleet
    if not fleet.version:
        return "No fleet was applied yet: the first launcher brings its fleet file"
    ago = seconds(max(0.0, found.at - fleet.applied_at))
    return f"Fleet version {fleet.version}, applied {ago} ago by {fleet.applied_by}"


def _control(found: Status) -> str:
    if not found.steered_at:
        return "[red]Control has never looked at this fleet: is beat running?[/red]"
    ago = seconds(max(0.0, found.at - found.steered_at))
    waits = f"; {found.control.backlog} control tasks wait" * bool(
        found.control.backlog
    )
    return f"Control looked at the fleet {ago} ago (by {found.steered_by}){waits}"
