"""``modelserver batch run``: a file of requests, run to its end."""

import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from modelserver.api import default_client
from modelserver.cli.batch.panel import Panel
from modelserver.cli.batch.report import report, show
from modelserver.cli.output import print_json
from modelserver.errors import BatchFileError, RequestError
from modelserver.runs.answer_cache import MAX_AGE_SECONDS, MAX_BYTES, CacheFile
from modelserver.runs.files.batch_run import BadLinesError, BatchOptions, BatchRun
from modelserver.runs.files.journal import BatchPaths, Journal
from modelserver.runs.files.output import whole_file
from modelserver.runs.files.source import Source, form_of, spooled
from modelserver.runs.telling import RunTeller
from modelserver.settings import Settings

#: So many reasons of bad lines are shown; with --json all of them.
MOST_REASONS = 50
#: A number of seconds above 0.
SECONDS = click.FloatRange(min=0, min_open=True)
#: What a URL begins with; of several slashes a path keeps one.
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
#: The exit status of a run that was stopped.
STOPPED = 130


@click.command()
@click.argument("source", metavar="INPUT")
@click.option(
    *("-o", "--output"),
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where answers are written, as in out.jsonl.",
)
@click.option("--model", default="", help="The model of all rows, whatever they say.")
@click.option("--prompt", help='For rows of columns: "Translate: {text}", with these.')
@click.option(
    "--chat", "is_chat", is_flag=True, help="For rows of columns: as a user's message."
)
@click.option(
    *("--set", "settings"),
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of all rows, as in max_tokens=64.",
)
@click.option(
    "--sorted",
    "is_sorted",
    is_flag=True,
    help="At the end, the output in the order of the input.",
)
@click.option("--skip-bad", is_flag=True, help="Go on without bad lines.")
@click.option("--priority", type=click.IntRange(0, 9), help="0 is the most urgent.")
@click.option("--deadline", type=SECONDS, help="Seconds for each row once it is sent.")
@click.option(
    "--cache",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep answers in this file, so that no run asks an identical row again.",
)
@click.option(
    "--cache-max-bytes",
    type=click.IntRange(min=1),
    default=MAX_BYTES,
    show_default=True,
    help="The oldest answers go above that.",
)
@click.option(
    "--cache-max-age",
    type=SECONDS,
    default=MAX_AGE_SECONDS,
    show_default=True,
    help="Seconds for which an answer is kept.",
)
@click.option(
    *("--format", "form"),
    type=click.Choice(["jsonl", "csv", "parquet"]),
    help="What the input is, where its name does not say.",
)
@click.option("--quiet", is_flag=True, help="No panel.")
@click.option(
    "--json", "as_json", is_flag=True, help="The report as one JSON document."
)
def run(
    source: str,
    output: Path,
    form: str | None,
    is_sorted: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Answer every request of a file; the same command again goes on after any end.

    INPUT is a JSONL file of OpenAI's Batch API, or with --prompt rows of columns (.csv,
    .parquet, or JSONL); gzip and zstd are unpacked, - is a pipe. Beside out.jsonl stand
    out.errors.jsonl with rows that failed, out.retry.jsonl with their requests, to be
    run again, and out.run.json, which the run is known by. Exits with 0 only if every
    row was answered.
    """
    refuse_places(source, output)
    made = parse_options(options)
    with ExitStack() as stack:
        opened = _open(stack, source, output, form or "")
        app = default_client()
        job = BatchRun(app, opened, BatchPaths(output), made)
        stack.callback(job.close)
        began = time.monotonic()
        prepare(job, as_json)
        settings = app.modelserver_tasks[0].settings
        shown, told = Panel(job, quiet), _told(job, settings, opened.name)
        with shown as panel, told as note, _stopped_by_signals(job):
            job.run(lambda: note(panel.draw))
        _tell(job, report(job, time.monotonic() - began), as_json)
        if is_sorted and not job.tally.left:
            _sort(job)
    if job.tally.left:
        sys.exit(STOPPED)
    sys.exit(1 if job.tally.failed else 0)


@contextmanager
def _told(
    job: BatchRun, settings: Settings, source: str
) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Tell others how far it is, as it was when last something was shown."""
    tally = job.tally
    noted = tally.answered + tally.failed, tally.failed

    def note(show: Callable[[], None]) -> None:
        nonlocal noted
        show()
        noted = tally.answered + tally.failed, tally.failed

    rows, name = ("rows", tally.total), Path(source).name
    teller = RunTeller(settings, job.journal.run, rows, lambda: noted, name)
    try:
        yield note
    finally:
        note(lambda: None)
        teller.end(not tally.left)


def refuse_places(source: str, output: Path) -> None:
    """Refuse what is no file of this machine. Raises RequestError."""
    for name, what in (("INPUT", source), ("-o", output.name)):
        # As a variable gives it that is not set.
        if not what:
            raise RequestError(f"{name} is empty; name a file")
    if str(output) == "-":
        raise RequestError("-o names a file: a run is known by what stands in it")
    if _URL.match(source):
        raise RequestError(
            f"{source} is a URL, and runs read files; copy it here, or send it through "
            "a pipe, as in `aws s3 cp URL - | modelserver batch run - -o out.jsonl`"
        )
    if _URL.match(str(output)):
        raise RequestError(
            f"{output} is a URL, and runs write files, by which they go on after any "
            "end; name a file, and copy it there at the end"
        )


def _sort(job: BatchRun) -> None:
    try:
        job.sort()
    except KeyboardInterrupt:
        told = (
            f"stopped; {job.paths.output} is whole, but not sorted. Run the same "
            "command again to sort it"
        )
        click.echo(told, err=True)
        sys.exit(STOPPED)


def _open(stack: ExitStack, source: str, output: Path, form: str) -> Source:
    path = Path(source)
    if source != "-" and not path.is_fifo():
        return Source(path, form=form)
    copy = _spooled(stack, source, output.parent)
    return Source(copy, "the pipe", form or form_of(path))


def _spooled(stack: ExitStack, source: str, folder: Path) -> Path:
    """What comes through a pipe, in a file that is gone with the stack."""
    if source == "-":
        return Path(stack.enter_context(spooled(sys.stdin.buffer, folder)).name)
    with Path(source).open("rb") as pipe:
        return Path(stack.enter_context(spooled(pipe, folder)).name)


def keep_pipe(source: str, paths: BatchPaths) -> None:
    """Keep what comes through a pipe beside the output, for other processes.

    Raises BatchFileError where a run was begun with something else.
    """
    with ExitStack() as stack:
        copy = _spooled(stack, source, paths.output.parent)
        journal = Journal.read(paths.journal)
        if journal is not None:
            digest = Source(copy, "the pipe").digest()
            journal.check_same(digest, journal.options, paths.output)
        elif paths.input.exists():
            raise BatchFileError(
                f"{paths.input} is there, and what comes through the pipe would be "
                "written into it; move it away, or choose another output"
            )
        if not paths.input.exists():
            with whole_file(paths.input) as stream, copy.open("rb") as read:
                shutil.copyfileobj(read, stream)


def parse_options(options: Mapping[str, Any]) -> BatchOptions:
    """The options of the command line, as a run takes them."""
    given = dict(options)
    parameters = dict(map(_parameter, given.pop("settings")))
    path: Path | None = given.pop("cache")
    bounds = given.pop("cache_max_bytes"), given.pop("cache_max_age")
    cache = CacheFile(path.absolute(), *bounds) if path else None
    return BatchOptions(parameters=parameters, cache=cache, **given)


def _parameter(text: str) -> tuple[str, Any]:
    name, is_given, value = text.partition("=")
    if not is_given or not name:
        raise RequestError(f"--set takes NAME=VALUE, as in max_tokens=64, not {text!r}")
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        return name, value


def prepare(job: BatchRun, as_json: bool) -> None:
    """Look at a run's files, and say what was found."""
    try:
        job.prepare()
    except BadLinesError as error:
        if as_json:
            errors = [problem.to_json() for problem in error.found.problems]
            print_json({"status": "failed", "errors": errors})
        _show_bad(job, error.found.told())
        raise
    said = job.inspection
    if said is not None and said.bad:
        _show_bad(job, said.told())
    for name in said.unknown if said else ():
        told = (
            f"no engine is known to take the parameter {name!r}; it goes there as it is"
        )
        click.echo(told, err=True)
    if job.asked_again:
        click.echo(
            f"{job.asked_again:,} rows that had failed are asked again", err=True
        )
    if job.torn:
        click.echo(f"{job.torn:,} bytes of torn lines were cut off", err=True)
    if job.inspection is None:
        done, total = job.tally.answered + job.tally.failed, job.tally.total
        told = f"{done:,} of {total:,} rows are done already"
        if left := total - done:
            told += f"; goes on with the other {left:,}"
        click.echo(told, err=True)


def _show_bad(job: BatchRun, told: list[str]) -> None:
    for text in told[:MOST_REASONS]:
        click.echo(f"{job.source.name}: {text}", err=True)
    if len(told) > MOST_REASONS:
        more = len(told) - MOST_REASONS
        click.echo(
            f"{job.source.name}: and {more:,} reasons more; see --json", err=True
        )


def _tell(job: BatchRun, found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        show(job, found, click.echo)
    if job.tally.left:
        click.echo(
            "stopped; what had not begun was taken back. Run the same command again to "
            "go on",
            err=True,
        )


@contextmanager
def _stopped_by_signals(job: BatchRun) -> Iterator[None]:
    """The first signal ends the run in order, the second one at once."""

    def stop(number: int, _: object) -> None:
        if job.is_stopped:
            raise KeyboardInterrupt
        job.stop()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
