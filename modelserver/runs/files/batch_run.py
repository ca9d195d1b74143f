"""One file of requests, from the first look at it to the last line of its output.

The order that nothing is lost or done twice by: a line is written, then made durable,
and only then may the fleet forget the answer. What the output holds is the truth of
what is done; a line's ``id`` names its row.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from modelserver.errors import BatchFileError, ModelserverError, StoreUnreachableError
from modelserver.runs.answer_cache import CacheFile
from modelserver.runs.feeder import Feeder, RowLane
from modelserver.runs.files.batch_form import answer_line, error_line, line_head
from modelserver.runs.files.journal import BatchPaths, Journal
from modelserver.runs.files.lines import BatchLine, LineBounds, LineReader
from modelserver.runs.files.output import (
    OutputFile,
    RowSet,
    check_name,
    check_place,
    whole_file,
)
from modelserver.runs.files.problems import LineError, shown
from modelserver.runs.files.sorting import sort_lines
from modelserver.runs.files.source import Source
from modelserver.runs.files.tally import Tally
from modelserver.runs.files.validation import Inspection, inspect
from modelserver.runs.lane import Lane
from modelserver.runs.prompts import Template
from modelserver.runs.repeats import AnswersOfRun
from modelserver.runs.rows import CANCELLED, Answered, Row, RowError
from modelserver.values import Json

#: What is written is made durable after so many seconds, or so many rows.
SYNC_SECONDS, SYNC_ROWS = 1.0, 1_000
#: The input is looked at for changes before each of so many rows.
UNCHANGED_ROWS = 1_000
#: What the tally calls a row whose line is bad.
NO_MODEL = "(bad lines)"


class BadLinesError(BatchFileError):
    """The input has bad lines, and nothing was sent."""

    def __init__(self, name: str, found: Inspection) -> None:
        lines = "line is" if found.bad == 1 else "lines are"
        super().__init__(
            f"{found.bad:,} {lines} bad in {name}, of {found.rows:,}; nothing was "
            "sent: correct them, or say --skip-bad to go on without them"
        )
        self.found = found


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a file is run."""

    #: The model of all rows, "" for that of each.
    model: str = ""
    #: What makes a prompt of a row of columns.
    prompt: str | None = None
    is_chat: bool = False
    #: Parameters of all rows.
    parameters: Mapping[str, Json] = field(default_factory=dict)
    skip_bad: bool = False
    priority: int | None = None
    #: Seconds within which each row is to be answered once it was sent.
    deadline: float | None = None
    #: Where answers are kept for identical rows of other runs, None for nowhere.
    cache: CacheFile | None = None
    #: The API key whose limits its rows count against, "" for none.
    api_key: str = ""
    bounds: LineBounds = field(default_factory=LineBounds)

    def kept(self) -> dict[str, Json]:
        """What the answers depend on, where it is said."""
        found = {
            "model": self.model,
            "prompt": self.prompt,
            "chat": self.is_chat,
            "parameters": dict(self.parameters),
        }
        return {name: value for name, value in found.items() if value}


class BatchRun:
    """One run of a file. ``prepare``, then ``run``; at the end ``close``."""

    def __init__(
        self, app: Celery, source: Source, paths: BatchPaths, options: BatchOptions
    ) -> None:
        self._app = app
        self.source = source
        self.paths = paths
        self.options = options
        self._template = None if options.prompt is None else Template(options.prompt)
        if source.is_table and self._template is None:
            raise BatchFileError(
                f"{source.name} is a table: say which prompt its rows make, as in "
                '--prompt "Translate: {text}"'
            )
        check_name(paths.output)
        for path in paths.all:
            if source.is_same_file(path):
                raise BatchFileError(
                    f"{source.name} is the input, and a run with the output "
                    f"{paths.output} would write into it; choose another output"
                )
            check_place(path)
        #: What was found at the first look, None where the run was begun before.
        self.inspection: Inspection | None = None
        self.tally = Tally(0)
        self._repeats = AnswersOfRun(None, False, app.modelserver_models, options.cache)
        self.journal: Journal
        self.feeder: Feeder | None = None
        self.is_stopped = False
        #: Whether what has not begun is taken back where the run is stopped.
        self.takes_back = True
        #: Raises where another program has the run now: then nothing counts any more.
        self.check_holder: Callable[[], None] = lambda: None
        #: Rows that had failed and whose errors were taken out.
        self.asked_again = 0
        #: Bytes of torn lines that were cut off.
        self.torn = 0
        self._outputs: list[OutputFile] = []
        #: What is under way, by number: its name, None for a bad line; its model.
        self._open: dict[int, tuple[str | None, str]] = {}
        #: Answers to rows that an earlier start sent and this one has not come to.
        self._early: dict[int, Answered] = {}
        self._unsettled: list[int] = []
        self._synced_at = time.monotonic()

    # Before anything is sent.

    def prepare(self) -> None:
        """Look at the whole input, or at what stands in the output already.

        Raises BadLinesError, BatchFileError.
        """
        digest = self.source.digest()
        journal = Journal.read(self.paths.journal)
        if journal is None:
            journal = self._begin(digest)
        else:
            journal.check_same(digest, self.options.kept(), self.paths.output)
        self.journal = journal
        self._answers = self._open_output(OutputFile(self.paths.output))
        self._errors = self._open_output(OutputFile(self.paths.errors))
        head = line_head(journal.run)
        self._answered, self._failed = RowSet(journal.rows), RowSet(journal.rows)
        self.torn = self._answers.take_over(head, self._answered)
        self.torn += self._errors.take_over(head, self._failed)
        self._check_output()
        if len(self._failed) < journal.failed:
            # Somebody took them out of the file of errors, to have them asked again.
            self.asked_again = journal.failed - len(self._failed)
            self._note_counts(again=1)
        self.tally = Tally(journal.rows, len(self._answered), len(self._failed))

    def _open_output(self, output: OutputFile) -> OutputFile:
        self._outputs.append(output)
        return output

    def _begin(self, digest: str) -> Journal:
        for path in (self.paths.output, self.paths.errors, self.paths.retry):
            with suppress(FileNotFoundError):
                if path.stat().st_size:
                    raise BatchFileError(
                        f"{path} is there, and {self.paths.journal.name} is not, so "
                        "it is not of this run; move it away, or choose another output"
                    )
        self.inspection = found = inspect(self.source, self._reader())
        self.source.check_unchanged()
        if not found.rows:
            raise BatchFileError(f"{self.source.name} is empty; there is nothing to do")
        if found.bad and not self.options.skip_bad:
            raise BadLinesError(self.source.name, found)
        options = self.options.kept()
        name, repeated = self.source.name, found.repeated
        journal = Journal.begin(name, digest, found.rows, options, repeated)
        # First what may fail: without a place to write, nothing is begun.
        OutputFile(self.paths.output).close()
        journal.write(self.paths.journal)
        return journal

    def _check_output(self) -> None:
        if len(self._answered) < self.journal.answered:
            raise BatchFileError(
                f"{self.paths.output} had {self.journal.answered:,} answers and has "
                f"{len(self._answered):,} now; put it back as it was, or remove "
                f"{self.paths.journal} as well to ask all rows again"
            )
        if self._answered.overlaps(self._failed):
            raise BatchFileError(
                f"{self.paths.output} and {self.paths.errors} have lines of the same "
                "rows; take them out of one, and run the same command again"
            )

    def _reader(self) -> LineReader:
        return LineReader(
            self._app.modelserver_models(),
            self.options.model,
            self.options.parameters,
            self._template,
            self.options.is_chat,
            deadline=self.options.deadline,
            bounds=self.options.bounds,
        )

    # While rows are under way.

    def run(self, watch: Callable[[], None], lane: RowLane | None = None) -> None:
        """Until all rows are settled, or ``stop``; ``watch`` is called now and then.

        ``lane`` is the way to the fleet. Raises BatchFileError; what is written by then
        stays.
        """
        priority = self.options.priority
        lane = lane or Lane(self._app, self.journal.lane, priority=priority)
        left = self.tally.left
        is_mixed = not self.options.model
        self.feeder = feeder = Feeder(lane, self._rows(), left, None, is_mixed)
        self.tally.mark(time.monotonic())
        if self.is_stopped:
            feeder.stop()
        self._repeats.open()
        try:
            for block in feeder:
                self._write(block)
                watch()
            if self.is_stopped:
                with suppress(StoreUnreachableError):
                    self._write(lane.receive(0.0))
        except BaseException:
            self.is_stopped = True
            raise
        finally:
            self._finish(lane)
        self._write_retry()

    def models_under_way(self) -> set[str]:
        """The models that rows are under way to."""
        return {model for _, model in self._open.values()} - {NO_MODEL}

    def stop(self) -> None:
        """End soon: what has not begun is taken back, from a signal's handler too."""
        self.is_stopped = True
        if self.feeder is not None:
            self.feeder.stop()

    def close(self) -> None:
        """Leave all files."""
        for output in self._outputs:
            output.close()

    def _finish(self, lane: RowLane) -> None:
        """Make durable what is written, and take back what has not begun."""
        # Of two errors the first one is told.
        with suppress(ModelserverError, OSError):
            self._sync()
        self._repeats.close()
        if self.is_stopped and self.takes_back and self._open:
            with suppress(ModelserverError):
                # What another program has under way is not taken back.
                self.check_holder()
                lane.cancel()

    def _rows(self) -> Iterator[Row | Answered]:
        reader, repeated = self._reader(), frozenset(self.journal.repeated)
        for number, (line, raw) in enumerate(self.source.rows()):
            if number % UNCHANGED_ROWS == 0:
                self.source.check_unchanged()
            if number >= self.journal.rows:
                break  # It grew; said below.
            if number in self._answered or number in self._failed:
                continue
            found = _read(reader, number, raw)
            if isinstance(found, BatchLine) and number in repeated:
                told = (
                    f"has the custom_id '{shown(found.custom_id)}' of an earlier line"
                )
                found = LineError("duplicate_custom_id", told, found.custom_id)
            if isinstance(found, LineError):
                self._open[number] = (found.custom_id, NO_MODEL)
                error = RowError("RequestError", f"line {line}: {found}")
                yield Answered(number, error=error)
            else:
                row = found.row
                self._open[number] = (found.custom_id, str(row.parameters["model"]))
                early = self._early.pop(number, None)
                yield from [early] if early else self._repeats.asked(row)
        self.source.check_unchanged()

    def _write(self, block: list[Answered]) -> None:
        due: dict[int, Answered] = {}
        for each in self._repeats.each_of(block):
            if each.number in self._open:
                due.setdefault(each.number, each)
            elif self._is_early(each):
                self._early[each.number] = each
            else:
                self._unsettled.append(each.number)
        lines, errors, run = [], [], self.journal.run
        for number, each in due.items():
            name = self._open[number][0]
            if each.error is None:
                lines.append(answer_line(run, str(name), each))
            else:
                errors.append(error_line(run, number, name, each.error))
        self._answers.append(lines)
        self._errors.append(errors)
        # Only what stands there is noted: it is forgotten by the fleet after this.
        for each in due.values():
            self._note(each)
        now = time.monotonic()
        self.tally.mark(now)
        is_time = now - self._synced_at > SYNC_SECONDS
        if is_time or len(self._unsettled) >= SYNC_ROWS:
            self._sync()

    def _note(self, answered: Answered) -> None:
        number = answered.number
        custom_id, model = self._open.pop(number)
        self._unsettled.append(number)
        if answered.error is None:
            self._answered.add(number)
            self.tally.answer(model, str(custom_id), answered)
        else:
            self._failed.add(number)
            self.tally.error(model, custom_id, answered.error)

    def _is_early(self, answered: Answered) -> bool:
        """Whether it answers a row that is still to come; what was cancelled is not."""
        number = answered.number
        is_done = number in self._answered or number in self._failed
        was_cancelled = answered.error is not None and answered.error.kind == CANCELLED
        return not (is_done or was_cancelled)

    def _sync(self) -> None:
        self._synced_at = time.monotonic()
        if not self._unsettled or self.feeder is None:
            return
        self._answers.sync()
        self._errors.sync()
        self.check_holder()
        self._note_counts()
        if self.feeder.settle(self._unsettled):
            self._unsettled = []

    def _note_counts(self, again: int = 0) -> None:
        """Have it known what was written, before the fleet forgets it."""
        counts = len(self._answered), len(self._failed)
        self.journal = self.journal.with_counts(*counts, again)
        self.journal.write(self.paths.journal)

    def _write_retry(self) -> None:
        """The requests of rows that were sent and failed, as a file to be run."""
        if self.tally.left:
            return
        # That of an earlier end: its rows may have been asked again since.
        self.paths.retry.unlink(missing_ok=True)
        if len(self._failed) and any(True for _ in self._retries()):
            with whole_file(self.paths.retry) as stream:
                stream.writelines(self._retries())

    def _retries(self) -> Iterator[bytes]:
        reader, repeated = self._reader(), frozenset(self.journal.repeated)
        for number, (_, raw) in enumerate(self.source.rows()):
            if number in self._failed and number not in repeated:
                found = _read(reader, number, raw)
                if isinstance(found, BatchLine):
                    yield found.raw + b"\n"

    def sort(self) -> None:
        """Put what was written into the order of the input.

        Raises BatchFileError; then the same command sorts it again.
        """
        head = line_head(self.journal.run)
        for path in (self.paths.output, self.paths.errors):
            sort_lines(path, head, self.journal.rows)


def _read(reader: LineReader, number: int, raw: Any) -> BatchLine | LineError:
    if isinstance(raw, LineError):
        return raw
    try:
        return reader.read(number, raw)
    except LineError as error:
        return error
