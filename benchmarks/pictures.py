"""The picture of a run in the docs: ``python -m benchmarks.pictures``.

Runs a file on test engines, with the panel half-way and the closing report on a
terminal of 80 columns, and writes it into docs/batch-run.svg.
"""

import io
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from benchmarks.rig import Rig
from modelserver.cli.batch.panel import render
from modelserver.cli.batch.report import report, show
from modelserver.runs.files.batch_run import BatchOptions, BatchRun
from modelserver.runs.files.journal import BatchPaths
from modelserver.runs.files.source import Source
from tests.support.batch_files import batch_line, write_lines

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "batch-run.svg"
ROWS = 2_000
#: Columns of the terminal.
WIDTH = 80
#: Every so many rows are refused by the engine.
MARKED = 250


class PictureRig(Rig):
    """With models of names that say something."""

    chat_model = "qwen3-8b"
    embed_model = "gte-large"


def main() -> None:
    """Make the picture."""
    nowhere = io.StringIO()
    screen = Console(width=WIDTH, record=True, force_terminal=True, file=nowhere)
    with PictureRig("--latency", "0.15", engines=2, limit=32) as rig:
        for engine in rig.engines:
            engine.fault(status=400, marked="forbidden")
        rig.worker()
        _run(rig, screen)
    PICTURE.write_text(screen.export_svg(title="modelserver batch run", clear=False))
    print(screen.export_text())
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


def _run(rig: PictureRig, screen: Console) -> None:
    source = write_lines(rig.folder / "in.jsonl", map(_line, range(ROWS)))
    paths = BatchPaths(rig.folder / "out.jsonl")
    run = BatchRun(rig.client(), Source(source), paths, BatchOptions())
    screen.print(Text("$ modelserver batch run in.jsonl -o out.jsonl", style="bold"))
    shown = False
    began = time.monotonic()

    def watch() -> None:
        nonlocal shown
        if not shown and run.tally.left < ROWS / 2:
            shown = True
            screen.print(render(run))

    try:
        run.prepare()
        run.run(watch)
    finally:
        run.close()
    screen.print(Text("...", style="dim"))
    folder = f"{rig.folder}/"
    show(
        run,
        report(run, time.monotonic() - began),
        lambda line: screen.print(Text(line.replace(folder, "").rstrip())),
    )


def _line(number: int) -> dict[str, object]:
    name, text = f"line-{number}", f"Translate line {number} into French."
    if number % 4 == 3:
        url, body = "/v1/embeddings", {"model": PictureRig.embed_model, "input": text}
        return {"custom_id": name, "method": "POST", "url": url, "body": body}
    if number % MARKED == 1:
        text = "This is forbidden."
    more = {"model": PictureRig.chat_model, "max_tokens": 8 + number % 25}
    return batch_line(name, text, **more)


if __name__ == "__main__":
    main()
