"""``python -m tests.api_clients [NAME ...]``: all clients, or those that are named."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.report import RESULTS, Report
from modelserver import settings as settings_module
from tests.api_clients.fleet import Subject, open_clients_fleet
from tests.api_clients.registry import CLIENTS, Client

#: One client's program takes no longer against one engine, in seconds.
LAST_SECONDS = 900.0


def main(names: Sequence[str]) -> int:
    """Try them and print a table; the exit status."""
    known = {client.name: client for client in CLIENTS}
    if unknown := [name for name in names if name not in known]:
        print(f"no client {', '.join(unknown)}; there are {', '.join(known)}")
        return 2
    chosen = [known[name] for name in names] or list(CLIENTS)
    settings = settings_module.load()
    starts = {each: each.find_start(settings) for each in chosen}
    with open_clients_fleet() as subjects:
        rows = [
            row
            for client, start in starts.items()
            for row in _rows(client, start, subjects)
        ]
    columns = ("client", "version", "tried", *subjects)
    print(Report(columns, tuple(rows)))
    tried = [row[3:] for row in rows if row[1] != "-"]
    failed = sum(not set(each) <= {"ok", "-"} for each in tried)
    print(
        f"{len(tried) - failed} of {len(tried)} as they should be, "
        f"{len(rows) - len(tried)} clients not tried"
    )
    return bool(failed)


def _rows(
    client: Client,
    start: list[str] | None,
    subjects: Mapping[str, Callable[[], Subject]],
) -> list[tuple[str, ...]]:
    """What came of each of the client's trials, by engine type."""
    if start is None:
        reason = client.command or client.engine
        why = f"not tried: {reason} is not installed"
        return [(client.name, "-", why, *("-" for _ in subjects))]
    found: dict[str, dict[str, str]] = {}
    for engine, find_subject in subjects.items():
        told = _trials(client, start, find_subject(), engine)
        right = list(told.values()).count("")
        print(f"{client.name} on {engine}: {right} of {len(told)}", flush=True)
        for trial, wrong in told.items():
            found.setdefault(trial, {})[engine] = wrong or "ok"
    version = client.version(start)
    return [
        (client.name, version, trial, *(told.get(each, "-") for each in subjects))
        for trial, told in found.items()
    ]


def _trials(
    client: Client, start: list[str], subject: Subject, engine: str
) -> dict[str, str]:
    """By trial: what was wrong, "" for nothing."""
    log = RESULTS / f"clients-{client.name}-{engine}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w+") as output:
        try:
            status = subprocess.run(
                [*start, json.dumps(subject.as_json())],
                cwd=Path(start[-1]).parent,
                stdout=output,
                stderr=output,
                timeout=LAST_SECONDS,
                check=False,
            ).returncode
            end = f"status {status}" if status else ""
        except subprocess.TimeoutExpired:
            end = f"not done after {LAST_SECONDS:g} s"
        output.seek(0)
        lines = [line for line in output if line.startswith('{"trial"')]
    told = {each["trial"]: _short(each["wrong"]) for each in map(json.loads, lines)}
    if end or not told:
        told["the program"] = f"{end or 'no trials'}; see {log}"
    return told


def _short(wrong: str) -> str:
    return wrong.partition("\n")[0][:80]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
