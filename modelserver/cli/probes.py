"""``latency`` and ``fastest``: ask engines side by side, and show what each answers."""

import asyncio
from dataclasses import asdict

import click
from rich.markup import escape

from modelserver.cli.output import FittingTable, console, print_json, seconds, table
from modelserver.operations import probe
from modelserver.operations.status import EngineStatus, read_status
from modelserver.operations.traffic import Traffic
from modelserver.settings import load
from modelserver.store import connect

#: What engines are shown without first where a screen is narrow.
SPARE_COLUMNS = ("host", "gpus", "p95", "url", "tokens/s", "p50")


@click.command()
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def latency(model: str | None, as_json: bool) -> None:
    """Probe every ready engine, of MODEL or of all, and show what each answers.

    The table also has what the engine's real requests measured.
    """
    settings = load()
    store = connect(settings)
    probes = asyncio.run(probe.latency(store, settings, model))
    engines = {engine.id: engine for engine in read_status(store, settings).engines}
    if as_json:
        print_json([_row(each, engines) for each in probes])
        return
    numbers = ("probe", "p50", "p95", "tokens/s")
    columns = ("model", "engine", "host", "url", "gpus", *numbers, "answer")
    made = table("Latency", *columns, numbers=numbers)
    for each in probes:
        engine, measured = engines.get(each.engine), _traffic(each, engines)
        rate = measured.tokens_per_second
        made.add_row(
            each.model,
            each.engine,
            engine.host if engine else "-",
            each.url,
            ",".join(map(str, engine.gpus)) if engine and engine.gpus else "-",
            "failed" if each.error else seconds(each.seconds),
            seconds(measured.p50_seconds),
            seconds(measured.p95_seconds),
            "-" if rate is None else f"{rate:.1f}",
            escape(" ".join((each.error or each.answer).split())[:80]),
        )
    console().print(FittingTable(made, SPARE_COLUMNS))


def _traffic(each: probe.Probe, engines: dict[str, EngineStatus]) -> Traffic:
    return engines[each.engine].traffic if each.engine in engines else Traffic()


def _row(each: probe.Probe, engines: dict[str, EngineStatus]) -> dict[str, object]:
    return {**asdict(each), "traffic": asdict(_traffic(each, engines))}


@click.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def fastest(model: str, as_json: bool) -> None:
    """Find the engine of MODEL that answers a probe first."""
    settings = load()
    winner = asyncio.run(probe.fastest(connect(settings), settings, model))
    if as_json:
        print_json(
            {"engine": winner.engine, "url": winner.url, "seconds": winner.seconds}
        )
    else:
        click.echo(f"{winner.engine} {winner.url} {seconds(winner.seconds)}")
