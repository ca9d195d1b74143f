"""One frame of ``modelserver top``: the whole fleet in a terminal of any size. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modelserver.cli.output import seconds
from modelserver.cli.status import STATE_COLOURS, engine_reason, model_note
from modelserver.inventory import gib
from modelserver.operations.words import clock, ordered
from modelserver.page.figures import ours_and_others
from modelserver.page.reading import EngineCard, FleetReading, ModelCard
from modelserver.runs.listed import ListedRun

#: Letters of a name that are shown at most.
NAME_WIDTH = 24
#: Columns of a run's bar.
BAR_WIDTH = 12
#: From so many columns on, columns stand two letters apart.
WIDE = 120
#: The share of the width that notes get, if need be in place of other columns.
NOTE_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a section."""

    title: str
    is_number: bool = False
    #: Where a terminal is narrow, the column with the greatest is left out first, and
    #: those with 0 never.
    spare: int = 0
    #: Whether it takes what width is left over.
    is_note: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One kind of thing, a row for each; the first rows matter most."""

    columns: tuple[Column, ...]
    rows: Sequence[tuple[RenderableType, ...]]

    def table(self, width: int, most_rows: int) -> Table:
        """So many rows at most; where there are more, the last one counts them."""
        is_wide = width >= WIDE
        table = Table(box=None, expand=True, padding=(0, 1 + is_wide, 0, 0))
        table.pad_edge = False
        shown = self._find_shown(width, 1 + is_wide)
        for column in (self.columns[n] for n in shown):
            table.add_column(
                column.title.upper(),
                justify="right" if column.is_number else "left",
                no_wrap=True,
                ratio=1 if column.is_note else None,
                max_width=None if column.is_note else NAME_WIDTH,
            )
        fits = len(self.rows) <= most_rows
        for row in self.rows if fits else self.rows[: most_rows - 1]:
            table.add_row(*(row[n] for n in shown))
        if not fits:
            left_out = len(self.rows) - most_rows + 1
            table.add_row(Text(f"... {left_out} more", style="dim"))
        return table

    def _find_shown(self, width: int, gap: int) -> list[int]:
        """The columns that are shown, so that notes can be read."""
        note = int(NOTE_SHARE * width)
        widths = [self._width(n, note) + gap for n in range(len(self.columns))]
        shown = list(range(len(self.columns)))
        while sum(widths[n] for n in shown) - gap > width:
            spare = max(shown, key=lambda n: self.columns[n].spare)
            if not self.columns[spare].spare:
                break
            shown.remove(spare)
        return shown

    def _width(self, place: int, note: int) -> int:
        column = self.columns[place]
        cells = [column.title, *(row[place] for row in self.rows)]
        widest = max(map(_width, cells))
        return min(widest, note if column.is_note else NAME_WIDTH)


def _width(cell: RenderableType) -> int:
    return BAR_WIDTH if isinstance(cell, ProgressBar) else cell_len(str(cell))


def share_rows(wanted: Sequence[int], room: int) -> list[int]:
    """The rows of each section: small ones whole, the others alike, one at least.

    >>> share_rows([1, 40, 3, 20], 24)
    [1, 10, 3, 10]
    """
    shares = [0] * len(wanted)
    by_size = sorted(range(len(wanted)), key=lambda place: wanted[place])
    for number, place in enumerate(by_size):
        fair = room // (len(wanted) - number)
        shares[place] = min(wanted[place], max(1, fair))
        room -= shares[place]
    return shares


def draw_frame(
    view: FleetReading, width: int, height: int | None = None, trouble: str = ""
) -> Group:
    """The frame for a terminal of this size; without a height, with every row.

    ``trouble`` is why what is shown is old.
    """
    every = (_alerts(view), _models(view), _engines(view), _gpus(view), _runs(view))
    sections = [section for section in every if section.rows]
    wanted = [len(section.rows) for section in sections]
    hint = "  |  q ends" * (height is not None)
    lines = [_line(_summary(view) + hint, "bold"), *_warnings(view, trouble)]
    heads = len(lines) + len(sections)
    whole = sum(wanted) + heads + len(sections)
    if height is None or whole <= height:
        parts: list[RenderableType] = [*lines]
        for section, rows in zip(sections, wanted, strict=True):
            parts += ["", section.table(width, rows)]
        return Group(*parts)
    shares = share_rows(wanted, height - heads)
    tables = map(lambda each, rows: each.table(width, rows), sections, shares)
    return Group(*lines, *tables)


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _summary(view: FleetReading) -> str:
    ready = sum(card.status.ready for card in view.models)
    wanted = sum(card.status.wanted for card in view.models)
    waits = sum(card.status.queue.backlog for card in view.models)
    number = len(view.alerts)
    alerts = f"{number} alert{'s' * (number != 1)}"
    told = f"{ready} of {wanted} engines ready, {waits:,} wait, {alerts}"
    return f"{told}  |  {clock(view.status.at)}"


def _warnings(view: FleetReading, trouble: str) -> list[Text]:
    found = [f"old: {trouble}"] * bool(trouble)
    if view.beat.is_problem:
        found.append(f"{view.beat.what}: {view.beat.fact}; {view.beat.remedy}")
    if short := view.status.memory_short:
        found.append(f"Redis is short of memory ({short}): new requests are refused")
    return [_line(each, "red") for each in found]


def _alerts(view: FleetReading) -> Section:
    at = view.status.at
    rows: list[tuple[RenderableType, ...]] = [
        (
            Text(each.about, "red"),
            seconds(max(0.0, at - (each.since or each.at))),
            Text(each.text),
        )
        for each in view.alerts
    ]
    rows += [
        (Text(o.target, "yellow"), "-", Text(ordered(o))) for o in view.status.orders
    ]
    columns = (
        Column("alert"),
        Column("since", True, spare=1),
        Column("", is_note=True),
    )
    return Section(columns, rows)


def _models(view: FleetReading) -> Section:
    def trouble_first(card: ModelCard) -> tuple[bool, int, str]:
        status = card.status
        return bool(status.ready), -status.queue.backlog, status.name

    columns = (
        Column("model"),
        Column("ready", True),
        Column("wait", True),
        Column("oldest", True, spare=2),
        Column("empty in", True, spare=3),
        Column("answers/s", True, spare=1),
        Column("cut off", True, spare=4),
        Column("note", is_note=True),
    )
    cards = sorted(view.models, key=trouble_first)
    return Section(columns, [_model_row(card) for card in cards])


def _model_row(card: ModelCard) -> tuple[RenderableType, ...]:
    status, waiting = card.status, card.waiting
    return (
        Text(status.name),
        f"{status.ready}/{status.wanted}",
        f"{status.queue.backlog:,}",
        seconds(waiting.oldest_seconds),
        seconds(waiting.drain_seconds),
        f"{waiting.rate:,.1f}",
        f"{status.cut_off:,}",
        Text.from_markup(model_note(status)),
    )


def _engines(view: FleetReading) -> Section:
    def trouble_first(card: EngineCard) -> tuple[bool, float, str]:
        status = card.status
        is_well = status.state.serves and status.host_live and not status.hold
        return is_well, -(card.against_peers or 0.0), status.id

    columns = (
        Column("engine"),
        Column("state"),
        Column("host", spare=3),
        Column("in flight", True, spare=1),
        Column("p50", True, spare=2),
        Column("p95", True, spare=6),
        Column("tokens/s", True, spare=4),
        Column("to peers", True, spare=5),
        Column("reason", is_note=True),
    )
    cards = sorted(view.engines, key=trouble_first)
    return Section(columns, [_engine_row(card) for card in cards])


def _engine_row(card: EngineCard) -> tuple[RenderableType, ...]:
    status, traffic, peers = card.status, card.status.traffic, card.against_peers
    rate = traffic.tokens_per_second
    lost, held = "?" * (not status.host_live), " held" * bool(status.hold)
    return (
        Text(status.id),
        Text(f"{status.state}{lost}{held}", STATE_COLOURS.get(status.state, "")),
        Text(status.host),
        f"{status.inflight}/{status.limit}" if status.limit else str(status.inflight),
        seconds(traffic.p50_seconds),
        seconds(traffic.p95_seconds),
        "-" if rate is None else f"{rate:,.1f}",
        "-" if peers is None else f"{peers:.2f}x",
        Text(engine_reason(status)),
    )


def _gpus(view: FleetReading) -> Section:
    found = [(host.name, gpu) for host in view.status.hosts for gpu in host.gpus]
    found.sort(key=lambda each: (not each[1].fault, each[0]))
    rows: list[tuple[RenderableType, ...]] = []
    for host, gpu in found:
        ours, others = ours_and_others(gpu)
        rows.append(
            (
                Text(gpu.label),
                Text(host),
                Text(gpu.name or "-"),
                gib(ours),
                gib(others),
                gib(gpu.total) if gpu.total else "-",
                "-" if gpu.utilization is None else f"{gpu.utilization:.0%}",
                "-" if gpu.temperature is None else str(gpu.temperature),
                Text(gpu.fault, "red") if gpu.fault else Text(gpu.holders),
            )
        )
    columns = (
        Column("gpu"),
        Column("host"),
        Column("name", spare=6),
        Column("ours", True, spare=2),
        Column("others", True, spare=3),
        Column("memory", True, spare=1),
        Column("util", True, spare=4),
        Column("°C", True, spare=5),
        Column("fault, or who holds it", is_note=True),
    )
    return Section(columns, rows)


def _runs(view: FleetReading) -> Section:
    columns = (
        Column("run"),
        Column("state"),
        Column("progress", spare=4),
        Column("done", True),
        Column("failed", True, spare=3),
        Column("rows/s", True, spare=2),
        Column("left", True, spare=1),
        Column("waits for", is_note=True),
    )
    return Section(columns, [_run_row(run) for run in view.listed_runs])


def _run_row(run: ListedRun) -> tuple[RenderableType, ...]:
    bar: RenderableType = ""
    done = f"{run.done:,}"
    if run.total is not None:
        whole = max(1, run.total)
        bar = ProgressBar(whole, run.done, width=BAR_WIDTH)
        done = f"{run.done / whole:.1%}"
    return (
        Text(run.id),
        run.state,
        bar,
        done,
        f"{run.failed:,}",
        "-" if run.rate is None else f"{run.rate:,.1f}",
        seconds(run.eta_seconds),
        Text(run.note),
    )
