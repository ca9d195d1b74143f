"""The whole input looked at before anything is sent."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from modelserver.runs.files.lines import BatchLine, LineReader
from modelserver.runs.files.problems import LineError, shown
from modelserver.runs.files.source import Source

#: Names are compared in so many parts, one part in memory at a time.
BUCKETS = 256
#: So many bad lines are told apart; more are counted.
MOST_PROBLEMS = 100_000
#: So many ranges of lines stand in one line of a report.
MOST_RANGES = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One bad line."""

    #: Its line in the file, from 1.
    line: int
    #: One word for programs.
    code: str
    reason: str

    def to_json(self) -> dict[str, object]:
        """As in the errors of OpenAI's batch object."""
        return {"code": self.code, "line": self.line, "message": self.reason}


@dataclass(slots=True)
class Inspection:
    """What a look through the whole input found."""

    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    #: How many lines are bad.
    bad: int = 0
    #: Rows by model.
    models: Counter[str] = field(default_factory=Counter)
    #: The rows whose custom_id an earlier row has.
    repeated: list[int] = field(default_factory=list)
    #: Parameters that no engine is known to take.
    unknown: tuple[str, ...] = ()

    def note(self, line: int, error: LineError) -> None:
        """One bad line more."""
        self.bad += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(line, error.code, str(error)))

    def told(self) -> list[str]:
        """The bad lines in words: one line for each reason."""
        by_reason: dict[str, list[int]] = {}
        for problem in self.problems:
            by_reason.setdefault(problem.reason, []).append(problem.line)
        return [_told(lines, reason) for reason, lines in by_reason.items()]


def inspect(source: Source, reader: LineReader) -> Inspection:
    """Look at every row. Raises BatchFileError where the file cannot be read on."""
    found = Inspection()
    names = [array("Q") for _ in range(BUCKETS)]
    for line, row in batch_lines(source, reader):
        found.rows += 1
        if isinstance(row, LineError):
            name = row.custom_id
            found.note(line, row)
        else:
            name = row.custom_id
            found.models[str(row.row.parameters["model"])] += 1
        if name is not None:
            value = hash(name) & 0xFFFF_FFFF_FFFF_FFFF
            names[value % BUCKETS].append(value)
    if repeated := _repeated(names):
        _note_repeated(source, reader, repeated, found)
    found.problems.sort(key=lambda problem: problem.line)
    found.unknown = tuple(sorted(reader.unknown))
    return found


def batch_lines(
    source: Source, reader: LineReader
) -> Iterator[tuple[int, BatchLine | LineError]]:
    """Each row with the number of its line, or what is wrong with it."""
    for number, (line, raw) in enumerate(source.rows()):
        if isinstance(raw, LineError):
            yield line, raw
            continue
        try:
            yield line, reader.read(number, raw)
        except LineError as error:
            yield line, error


def _repeated(buckets: "Iterable[array[int]]") -> set[int]:
    """Values that are there more than once."""
    found: set[int] = set()
    for bucket in buckets:
        if len(set(bucket)) < len(bucket):
            found |= {value for value, times in Counter(bucket).items() if times > 1}
    return found


def _note_repeated(
    source: Source, reader: LineReader, repeated: set[int], found: Inspection
) -> None:
    """Look again at the rows whose names may be there twice."""
    first: dict[str, int] = {}
    for number, (line, row) in enumerate(batch_lines(source, reader)):
        name = row.custom_id
        if name is None or (hash(name) & 0xFFFF_FFFF_FFFF_FFFF) not in repeated:
            continue
        if name in first:
            told = f"has the custom_id '{shown(name)}', as line {first[name]} has"
            # A line that is bad anyway is left out anyway.
            if isinstance(row, BatchLine):
                found.repeated.append(number)
                found.note(line, LineError("duplicate_custom_id", told))
        else:
            first[name] = line


def _told(lines: list[int], reason: str) -> str:
    """Lines with the same reason.

    >>> _told([3, 4, 5, 9], "is no object")
    'lines 3-5, 9 (4 lines): is no object'
    """
    if len(lines) == 1:
        return f"line {lines[0]}: {reason}"
    ranges: list[list[int]] = []
    for line in lines:
        if ranges and line == ranges[-1][1] + 1:
            ranges[-1][1] = line
        else:
            ranges.append([line, line])
    shown = [f"{a}-{b}" if b > a else str(a) for a, b in ranges[:MOST_RANGES]]
    more = ", ..." if len(ranges) > MOST_RANGES else ""
    return f"lines {', '.join(shown)}{more} ({len(lines):,} lines): {reason}"
