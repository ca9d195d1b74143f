"""The demo's end: a file of requests whose command is killed half-way and run again."""

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
from rich.console import Console

from modelserver.cli.programs import environment, programs_folder, python_program
from modelserver.errors import ModelserverError
from modelserver.settings import Settings

#: Rows of the file.
DEMO_ROWS = 60
#: A row asks for so many tokens more than the one before: so answers come one by one.
DEMO_MORE_TOKENS = 3
#: The file must be done after so many seconds.
DEMO_FILE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of the rows of the demo's file."""

    rows: int
    answered: int
    #: Rows that stand in the output more than once.
    twice: int
    #: Rows that stand in none of the files.
    lost: int
    #: Requests that engines got beyond one for each row.
    asked_again: int

    @property
    def perfect(self) -> bool:
        """Whether every row was asked and answered exactly once."""
        bad = (self.twice, self.lost, self.asked_again)
        return self.answered == self.rows and not any(bad)

    def line(self) -> str:
        """The file's closing line."""
        return (
            f"file: rows {self.rows}, answered {self.answered}, twice {self.twice}, "
            f"lost {self.lost}, asked again {self.asked_again}"
        )


class DemoFile:
    """A file of chats, and the command that answers it.

    ``requests`` says how many requests engines have got so far.
    """

    def __init__(
        self,
        settings: Settings,
        model: str,
        screen: Console,
        requests: Callable[[], int],
    ) -> None:
        self._environment = environment(settings)
        self._screen = screen
        self._requests = requests
        folder = settings.run_dir / "file"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.source, self.output = folder / "in.jsonl", folder / "out.jsonl"
        lines = (_line(model, number) for number in range(DEMO_ROWS))
        self.source.write_bytes(b"".join(lines))

    def run(self) -> FileOutcome:
        """Run it, kill the command once half of the rows are answered, run it again."""
        asked = self._requests()
        say = self._screen.print
        say(f"modelserver batch run {self.source} -o {self.output}", soft_wrap=True)
        runner = self._start()
        try:
            self._await_half(runner)
        finally:
            runner.kill()
            runner.communicate()
        say(
            f"half-way: killed the command (pid {runner.pid}) with SIGKILL; "
            f"{len(_names(self.output))} of {DEMO_ROWS} answers stand in its output"
        )
        say("the same command again:")
        told, _ = self._start().communicate(timeout=DEMO_FILE_SECONDS)
        say(told.decode().rstrip(), markup=False, highlight=False, soft_wrap=True)
        return self._count(asked)

    def _start(self) -> "subprocess.Popen[bytes]":
        argv = python_program("modelserver.cli", "batch", "run", "--quiet")
        return subprocess.Popen(
            [*argv, str(self.source), "-o", str(self.output)],
            cwd=programs_folder(),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def _await_half(self, runner: "subprocess.Popen[bytes]") -> None:
        end = time.monotonic() + DEMO_FILE_SECONDS
        while len(_names(self.output)) < DEMO_ROWS // 2:
            if runner.poll() is not None or time.monotonic() > end:
                said = runner.stdout.read(2_000).decode() if runner.stdout else ""
                raise ModelserverError(f"the file of requests was not answered: {said}")
            time.sleep(0.02)

    def _count(self, asked_before: int) -> FileOutcome:
        found = Counter(_names(self.output))
        failed = Counter(_names(self.output.with_name("out.errors.jsonl")))
        end = time.monotonic() + 3  # Counts of requests come a moment after answers.
        while (asked := self._requests() - asked_before) < DEMO_ROWS:
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        return FileOutcome(
            rows=DEMO_ROWS,
            answered=len(found),
            twice=sum(times > 1 for times in (found + failed).values()),
            lost=DEMO_ROWS - len(found + failed),
            asked_again=max(0, asked - DEMO_ROWS),
        )


def _line(model: str, number: int) -> bytes:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"Row {number}: what is a row?"}],
        "max_tokens": DEMO_MORE_TOKENS * (number + 1),
    }
    url = "/v1/chat/completions"
    line = {"custom_id": f"row-{number}", "method": "POST", "url": url, "body": body}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _names(path: Path) -> list[str]:
    """The custom_ids of the whole lines of an output."""
    text = path.read_bytes() if path.exists() else b""
    lines = text[: text.rfind(b"\n") + 1].splitlines()
    return [orjson.loads(line)["custom_id"] for line in lines]
