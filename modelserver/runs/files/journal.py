"""What a run was begun with, in a small file beside its output."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
from typing_extensions import Self

from modelserver.errors import BatchFileError
from modelserver.runs.files.output import whole_file
from modelserver.runs.files.problems import file_error

#: By which options of the command its options are given.
_OPTIONS = {
    "model": "--model",
    "prompt": "--prompt",
    "chat": "--chat",
    "parameters": "--set",
}


@dataclass(frozen=True, slots=True)
class BatchPaths:
    """The files of a run, all beside its output."""

    output: Path

    def _beside(self, what: str) -> Path:
        stem = self.output.name.removesuffix(".jsonl")
        return self.output.with_name(f"{stem}.{what}")

    @property
    def all(self) -> tuple[Path, ...]:
        """All of them."""
        return self.output, self.errors, self.retry, self.journal

    @property
    def errors(self) -> Path:
        """Rows without an answer, in OpenAI's form."""
        return self._beside("errors.jsonl")

    @property
    def retry(self) -> Path:
        """The requests of rows that failed, to be fed in again."""
        return self._beside("retry.jsonl")

    @property
    def input(self) -> Path:
        """What came through a pipe, for whoever carries the run out."""
        return self._beside("input")

    @property
    def journal(self) -> Path:
        """What the run was begun with."""
        return self._beside("run.json")


@dataclass(frozen=True, slots=True)
class Journal:
    """What makes a run the same run. Written before its first row is sent."""

    #: Names the run in Redis and in its output's lines.
    run: str
    #: The input as it was named.
    source: str
    #: Tells the input from any other.
    digest: str
    #: How many rows it has.
    rows: int
    #: What else the answers depend on, by the options' names.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: Rows that are left out, because an earlier one has their custom_id.
    repeated: tuple[int, ...] = ()
    #: Answers that stood in the output when it was last made durable.
    answered: int = 0
    #: Errors that stood beside it then.
    failed: int = 0
    #: How often rows that had failed are asked again.
    again: int = 0

    @classmethod
    def begin(
        cls,
        source: str,
        digest: str,
        rows: int,
        options: Mapping[str, Any],
        repeated: Iterable[int] = (),
    ) -> Self:
        """A new run."""
        name = f"run{uuid.uuid4().hex[:12]}"
        return cls(name, source, digest, rows, options, tuple(repeated))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The run that was begun here, None where there is none."""
        try:
            values = orjson.loads(path.read_bytes())
            names = cls.__dataclass_fields__
            known = {name: values[name] for name in names if name in values}
            return cls(**known)._checked()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise file_error("read", path, error) from None
        except (ValueError, TypeError):
            raise BatchFileError(
                f"{path} is damaged, and the output cannot be gone on with; move it "
                "and the output away, or choose another output"
            ) from None

    def _checked(self) -> Self:
        """Itself. Raises ValueError where a value is none of ours."""
        numbers = (self.rows, self.answered, self.failed, self.again, *self.repeated)
        texts = (self.run, self.source, self.digest)
        is_sound = (
            all(type(each) is int and each >= 0 for each in numbers)
            and all(type(each) is str for each in texts)
            and isinstance(self.options, dict)
        )
        if not is_sound:
            raise ValueError("it is not what was written")
        return self

    def write(self, path: Path) -> None:
        """Write it whole or not at all."""
        text = orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)
        with whole_file(path) as stream:
            stream.write(text + b"\n")

    @property
    def lane(self) -> str:
        """The run's name in Redis, where no row of a name is answered twice."""
        return f"{self.run}-{self.again}" if self.again else self.run

    def with_counts(self, answered: int, failed: int, again: int = 0) -> Self:
        """The same with so many answers and errors; asked once more, or not."""
        more = self.again + again
        return replace(self, answered=answered, failed=failed, again=more)

    def check_same(self, digest: str, options: Mapping[str, Any], output: Path) -> None:
        """Refuse to go on with another input or other options. Says which."""
        if digest != self.digest:
            raise BatchFileError(
                f"{output} was begun with another input ({self.source}, {self.rows:,} "
                "rows); give that one as it was, or choose another output"
            )
        names = sorted(self.options.keys() | options.keys())
        changed = [
            f"{_OPTIONS.get(name, name)} was {_value(self.options.get(name))} and is "
            f"{_value(options.get(name))} now"
            for name in names
            if self.options.get(name) != options.get(name)
        ]
        if changed:
            raise BatchFileError(
                f"{output} was begun with other options: {'; '.join(changed)}; say "
                "the same, or choose another output"
            )


def _value(value: Any) -> str:
    """What was given by an option, as it is given."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    return "not given" if value is None else "given" if value is True else repr(value)
