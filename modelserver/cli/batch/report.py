"""The closing report of a run: as plain values, and in words."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from modelserver.cli.output import seconds
from modelserver.runs.files.batch_run import BatchRun
from modelserver.runs.files.problems import shown
from modelserver.runs.files.tally import Tally

#: The columns of a report, each with its name in the report's values.
_COLUMNS = {
    "answered": "completed",
    "failed": "failed",
    "cut off": "cut_off",
    "requests/s": "requests_per_second",
    "tokens/s in": "input_tokens_per_second",
    "tokens/s out": "output_tokens_per_second",
}
#: What the files are that a run leaves.
_FILES = {
    "output_file": "answers",
    "error_file": "errors",
    "retry_file": "requests to be run again",
}


def report(run: BatchRun, spent_seconds: float) -> dict[str, Any]:
    """The closing report as plain values."""
    tally, paths = run.tally, run.paths
    usage = (tally.prompt_tokens, tally.completion_tokens)
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
        "retries": tally.retries,
        "cache_hits": tally.cache_hits,
        "seconds": round(spent_seconds, 3),
        **_rates(spent_seconds, tally.done_now, *usage),
        "usage": _tokens(*usage) | {"total_tokens": sum(usage)},
        "models": _models(tally, spent_seconds),
        "engines": _engines(tally, spent_seconds),
        "faults": dict(sorted(tally.faults.items())),
        "slowest": _largest(tally.slowest, "seconds"),
        "longest": _largest(tally.longest, "output_tokens"),
        "output_file": str(paths.output) if tally.answered else None,
        "error_file": str(paths.errors) if tally.failed else None,
        "retry_file": str(paths.retry) if paths.retry.exists() else None,
    }


def _status(run: BatchRun) -> str:
    if run.tally.left:
        return "cancelled" if run.is_stopped else "in_progress"
    return "completed"


def _tokens(prompt: int, completion: int) -> dict[str, int]:
    return {"input_tokens": prompt, "output_tokens": completion}


def _rates(spent: float, rows: int, prompt: int, completion: int) -> dict[str, float]:
    counts = {
        "requests_per_second": rows,
        "input_tokens_per_second": prompt,
        "output_tokens_per_second": completion,
    }
    return {name: round(count / max(spent, 1e-6), 2) for name, count in counts.items()}


def _models(tally: Tally, spent: float) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, each in sorted(tally.models.items()):
        usage = (each.prompt_tokens, each.completion_tokens)
        found[name] = {
            "completed": each.answered,
            "failed": each.failed,
            "cut_off": each.cut_off,
            **_tokens(*usage),
            **_rates(spent, each.done, *usage),
        }
    return found


def _engines(tally: Tally, spent: float) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, answers in sorted(tally.engines.items()):
        usage = (tally.engines_in[name], tally.engines_out[name])
        rates = _rates(spent, answers, *usage)
        found[name] = {"completed": answers, **_tokens(*usage), **rates}
    return found


def _largest(rows: Sequence[Any], what: str) -> list[dict[str, Any]]:
    ordered = sorted(rows, reverse=True)
    return [{"custom_id": name, what: value} for value, name in ordered if value]


class Tallied(Protocol):
    """A run, whoever carries it out."""

    @property
    def tally(self) -> Tally:
        """What came of its rows."""


def show(run: Tallied, found: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """The closing report in words, in lines that a narrow terminal takes."""
    for line in _lines(run.tally, found):
        say(line)


def _lines(tally: Tally, found: Mapping[str, Any]) -> Iterator[str]:
    usage, cut_off = found["usage"], found["cut_off"]
    before = tally.answered_before + tally.failed_before
    earlier = f" ({before:,} of them earlier)" if before else ""
    yield (
        f"{tally.answered + tally.failed:,} of {tally.total:,} rows are done{earlier}: "
        f"{tally.answered:,} answered, {tally.failed:,} failed"
    )
    yield (
        f"{seconds(found['seconds'])}, {found['requests_per_second']:,.1f} requests/s; "
        f"{usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out; "
        f"{_count(found['retries'], 'retry', 'retries')}, "
        f"{_count(found['cache_hits'], 'cache hit', 'cache hits')}"
    )
    if cut_off:
        answers = _count(cut_off, "answer was", "answers were")
        yield f"{answers} cut off by max_tokens (finish_reason length)"
    for fault, count in found["faults"].items():
        yield f"{count:,} failed by {fault}, as {tally.examples[fault]}"
    yield from _table(found["models"], found["engines"])
    yield from _extremes("slowest", found["slowest"], "seconds", "s")
    yield from _extremes("longest", found["longest"], "output_tokens", "tokens")
    files = [(found[name], what) for name, what in _FILES.items() if found[name]]
    width = max((len(path) for path, _ in files), default=0)
    for path, what in files:
        yield f"{path:{width}}  {what}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _table(models: Mapping[str, Any], engines: Mapping[str, Any]) -> Iterator[str]:
    """Models and engines in the same columns."""
    rows: list[Sequence[str]] = []
    titles = [*_COLUMNS]
    for title, part in (("model", models), ("engine", engines)):
        if part:
            rows.append((title, *titles))
        titles = [""] * len(_COLUMNS)
        for name, values in part.items():
            told = [_cell(values.get(key), key) for key in _COLUMNS.values()]
            rows.append((name, *told))
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        padded = map(str.rjust, cells, widths[1:])
        yield "  ".join((name.ljust(widths[0]), *padded)).rstrip()


def _cell(value: float | None, key: str) -> str:
    if value is None:
        return ""
    return f"{value:,.1f}" if key == "requests_per_second" else f"{value:,.0f}"


def _extremes(
    title: str, rows: Sequence[Mapping[str, Any]], what: str, unit: str
) -> Iterator[str]:
    told = [f"{shown(row['custom_id'])} ({_short(row[what])} {unit})" for row in rows]
    if told:
        yield f"{title}: {', '.join(told)}"


def _short(value: float) -> str:
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}"
