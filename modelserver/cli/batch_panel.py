"""The panel of a run while it goes on, and its closing report."""

import sys
import time
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modelserver.cli.output import seconds, table
from modelserver.runs.files.batch_run import BatchRun
from modelserver.runs.files.tally import Tally

#: The panel is drawn anew after so many seconds.
DRAWN_SECONDS = 0.5
#: Where there is no terminal, a line is written after so many seconds.
LINE_SECONDS = 30.0
#: Columns of the panel's bar.
BAR_WIDTH = 40


class Panel:
    """Shows a run on stderr: a panel in a terminal, else a line now and then."""

    def __init__(self, run: BatchRun, is_quiet: bool) -> None:
        self._run = run
        self._console = Console(stderr=True)
        self._is_quiet = is_quiet
        self._is_live = not is_quiet and sys.stderr.isatty()
        self._live = Live(console=self._console, auto_refresh=False)
        self._drawn_at = time.monotonic()

    def __enter__(self) -> "Panel":
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_live:
            self._live.update(render(self._run), refresh=True)
            self._live.stop()

    def draw(self) -> None:
        """Show it anew if it is time."""
        pause = DRAWN_SECONDS if self._is_live else LINE_SECONDS
        if self._is_quiet or time.monotonic() - self._drawn_at < pause:
            return
        self._drawn_at = time.monotonic()
        if self._is_live:
            self._live.update(render(self._run), refresh=True)
        else:
            click.echo(line(self._run), err=True)


def render(run: BatchRun) -> Group:
    """The whole panel."""
    tally = run.tally
    done = tally.answered + tally.failed
    head = Table.grid(padding=(0, 2))
    told = [f"{done:,}/{tally.total:,}", _failed(tally), f"ETA {_eta(tally)}"]
    bar = ProgressBar(total=max(1, tally.total), completed=done, width=BAR_WIDTH)
    head.add_row(bar, *told)
    parts: list[Any] = [head, Text(_speed(run)), _models(run)]
    if waits := _waits(run):
        parts.append(Text(f"waits: {waits}", style="yellow"))
    return Group(*parts)


def line(run: BatchRun) -> str:
    """The same in one line."""
    tally = run.tally
    done = f"{tally.answered + tally.failed:,}/{tally.total:,}"
    waits = f"; waits: {waits}" if (waits := _waits(run)) else ""
    failed = f", {tally.failed:,} failed" if tally.failed else ""
    return f"{done}{failed}, ETA {_eta(tally)}; {_speed(run)}{waits}"


def _failed(tally: Tally) -> str:
    return f"[red]{tally.failed:,} failed[/]" if tally.failed else "0 failed"


def _eta(tally: Tally) -> str:
    return seconds(tally.eta_seconds) if tally.left else "done"


def _speed(run: BatchRun) -> str:
    rows, prompt, completion = run.tally.rates
    under_way = len(run.feeder.under_way) if run.feeder else 0
    return (
        f"{rows:,.1f} requests/s, {prompt:,.0f} tokens/s in, {completion:,.0f} "
        f"tokens/s out, {under_way:,} in flight"
    )


def _models(run: BatchRun) -> Table:
    numbers = ("answered", "failed", "cut off", "tokens in", "tokens out", "places")
    made = table("", "model", *numbers, numbers=numbers)
    made.title = None
    places = run.feeder.places if run.feeder else {}
    for name, each in sorted(run.tally.models.items()):
        counts = (each.answered, each.failed, each.cut_off)
        tokens = (each.prompt_tokens, each.completion_tokens)
        shown = [f"{count:,}" for count in (*counts, *tokens, places.get(name, 0))]
        made.add_row(escape(name), *shown)
    return made


def _waits(run: BatchRun) -> str:
    """What a run waits for, "" where it gets on."""
    feeder = run.feeder
    if feeder is None:
        return ""
    if feeder.trouble:
        return feeder.trouble
    without = sorted(run.models_under_way() - set(feeder.places))
    if without:
        names = ", ".join(without)
        return f"no engine of {names} is ready; see `modelserver why {without[0]}`"
    return ""


def report(run: BatchRun, spent_seconds: float) -> dict[str, Any]:
    """The closing report as plain values."""
    tally = run.tally
    spent = max(spent_seconds, 1e-6)
    paths = run.paths
    return {
        "run": run.journal.run,
        "status": _status(run),
        "request_counts": {
            "total": tally.total,
            "completed": tally.answered,
            "failed": tally.failed,
        },
        "answered_before": tally.answered_before,
        "failed_before": tally.failed_before,
        "cut_off": tally.cut_off,
        "seconds": round(spent_seconds, 3),
        "requests_per_second": round(tally.done_now / spent, 2),
        "usage": {
            "input_tokens": tally.prompt_tokens,
            "output_tokens": tally.completion_tokens,
            "total_tokens": tally.prompt_tokens + tally.completion_tokens,
        },
        "models": {
            name: {
                "completed": each.answered,
                "failed": each.failed,
                "cut_off": each.cut_off,
                "input_tokens": each.prompt_tokens,
                "output_tokens": each.completion_tokens,
                "requests_per_second": round(each.done / spent, 2),
            }
            for name, each in sorted(tally.models.items())
        },
        "engines": dict(sorted(tally.engines.items())),
        "faults": dict(sorted(tally.faults.items())),
        "slowest": _largest(tally.slowest, "seconds"),
        "longest": _largest(tally.longest, "output_tokens"),
        "output_file": str(paths.output) if tally.answered else None,
        "error_file": str(paths.errors) if tally.failed else None,
        "retry_file": str(paths.retry) if paths.retry.exists() else None,
    }


def _largest(rows: list[Any], what: str) -> list[dict[str, Any]]:
    ordered = sorted(rows, reverse=True)
    return [{"custom_id": name, what: value} for value, name in ordered if value]


def _status(run: BatchRun) -> str:
    if run.tally.left:
        return "cancelled" if run.is_stopped else "in_progress"
    return "completed"


def show(run: BatchRun, found: dict[str, Any], say: Callable[[str], None]) -> None:
    """The closing report in words."""
    tally, usage = run.tally, found["usage"]
    before = tally.answered_before + tally.failed_before
    earlier = f" ({before:,} of them earlier)" if before else ""
    say(
        f"{tally.answered + tally.failed:,} of {tally.total:,} rows are done{earlier}: "
        f"{tally.answered:,} answered, {tally.failed:,} failed"
    )
    say(
        f"{seconds(found['seconds'])}, {found['requests_per_second']:,} requests/s, "
        f"{usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out"
    )
    if tally.cut_off:
        say(
            f"{tally.cut_off:,} answers were cut off by max_tokens (finish_reason "
            "length)"
        )
    for name, each in found["models"].items():
        say(
            f"  {name}: {each['completed']:,} answered, {each['failed']:,} failed, "
            f"{each['requests_per_second']:,} requests/s"
        )
    engines = ", ".join(f"{name} {count:,}" for name, count in found["engines"].items())
    if engines:
        say(f"  by engine: {engines}")
    for fault, count in found["faults"].items():
        say(f"  {count:,} failed by {fault}, as {tally.examples[fault]}")
    for title, unit in (("slowest", "seconds"), ("longest", "output_tokens")):
        rows = [f"{row['custom_id']} {row[unit]:g}" for row in found[title]]
        if rows:
            say(f"  {title} ({unit.replace('_', ' ')}): {', '.join(rows)}")
    for what in ("output_file", "error_file", "retry_file"):
        if found[what]:
            say(f"  {what.replace('_', ' ')}: {found[what]}")
