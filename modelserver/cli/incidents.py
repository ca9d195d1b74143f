"""``modelserver incidents``: lists what this host keeps of engines that ended."""

import dataclasses
from datetime import datetime
from pathlib import Path

import click
from rich.markup import escape

from modelserver.cli.output import FittingTable, console, print_json, table
from modelserver.errors import ModelserverError
from modelserver.operations.incidents import INCIDENTS_FOLDER, Incident, read_incidents
from modelserver.settings import load

#: How many lines of the engine's log ``show`` prints.
SHOWN_LOG_LINES = 12
#: How many letters of a reason are listed.
REASON_LETTERS = 90
#: What incidents are listed without first where a screen is narrow: ids tell it too.
SPARE_COLUMNS = ("inc", "time", "engine")
#: How many letters of a line ``show`` prints.
LINE_LETTERS = 160


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def incidents(context: click.Context, as_json: bool) -> None:
    """List this host's incidents: engines that hung, died or never got ready."""
    if context.invoked_subcommand:
        return
    run_dir = load().run_dir
    found = read_incidents(run_dir)
    if as_json:
        print_json([_values(run_dir, incident) for incident in found])
        return
    if not found:
        click.echo("There are no incidents on this host.")
        return
    made = table("Incidents", "time", "engine", "inc", "id", "reason", numbers=("inc",))
    for each in found:
        # `show` says where the log is.
        reason = escape(each.reason.partition("; see ")[0][:REASON_LETTERS])
        inc = str(each.incarnation)
        made.add_row(_when(each), each.engine, inc, each.id, reason)
    console().print(FittingTable(made, SPARE_COLUMNS))
    click.echo(f"\nEach is a folder in {run_dir / INCIDENTS_FOLDER}")


@incidents.command()
@click.argument("incident")
def show(incident: str) -> None:
    """Print the summary of INCIDENT, an id from the list."""
    run_dir = load().run_dir
    found = {each.id: each for each in read_incidents(run_dir)}.get(incident)
    if found is None:
        raise ModelserverError(
            f"there is no incident {incident} on this host; `modelserver incidents` "
            "lists them"
        )
    folder = run_dir / INCIDENTS_FOLDER / found.id
    for name, value in dataclasses.asdict(found).items():
        if value and name not in ("at", "started_at"):
            click.echo(f"{name:12} {value}")
    click.echo(f"{'time':12} {_when(found)}")
    if found.started_at:
        click.echo(f"{'ran':12} {found.at - found.started_at:.1f} s since its start")
    _print_part("Processes", folder / "processes.txt")
    _print_part("Last lines of its log", folder / "log.txt", last=SHOWN_LOG_LINES)
    click.echo(f"\nFiles in {folder}:")
    for path in sorted(folder.iterdir()):
        click.echo(f"  {path.name:16} {path.stat().st_size:>8} bytes")


def _print_part(title: str, path: Path, last: int = 0) -> None:
    click.echo(f"\n{title}:")
    text = path.read_text(errors="replace") if path.exists() else "not there\n"
    for line in text.splitlines()[-last:]:
        click.echo(f"  {line[:LINE_LETTERS]}")


def _when(incident: Incident) -> str:
    return datetime.fromtimestamp(incident.at).strftime("%Y-%m-%d %H:%M:%S")


def _values(run_dir: Path, incident: Incident) -> dict[str, object]:
    path = str(run_dir / INCIDENTS_FOLDER / incident.id)
    return {**dataclasses.asdict(incident), "path": path}
