"""Charts as SVG, drawn here: they need no library and no script. Pure."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from markupsafe import Markup

from modelserver.operations.words import seconds

#: Size of a small line beside a figure.
SPARK_WIDTH, SPARK_HEIGHT = 96, 22
#: Size of the plot of an engine's requests, without its labels.
PLOT_WIDTH, PLOT_HEIGHT = 620, 150
#: Room for the labels of a plot, at its left and below.
LABEL_WIDTH, LABEL_HEIGHT = 52, 20
#: Width of a bar, stretched to its place.
BAR_WIDTH = 200
#: Points of a small line at most: more cannot be told apart.
SPARK_POINTS = 48


def spark(values: Sequence[float], label: str) -> Markup:
    """A small line from 0 to the greatest value; nothing for fewer than two values.

    >>> str(spark([1, 2], "seconds"))[:44]
    '<svg class="spark" viewBox="0 0 96 22" role='
    """
    if len(values) < 2:
        return Markup("")
    shown = _thinned(values)
    most = max(shown) or 1.0
    step = SPARK_WIDTH / (len(shown) - 1)
    points = " ".join(
        f"{place * step:.1f},{SPARK_HEIGHT - 2 - (SPARK_HEIGHT - 4) * value / most:.1f}"
        for place, value in enumerate(shown)
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '<polyline points="{}"/></svg>'
    ).format(SPARK_WIDTH, SPARK_HEIGHT, label, points)


def _thinned(values: Sequence[float]) -> list[float]:
    """As few values as can be shown, each the greatest of its part."""
    if len(values) <= SPARK_POINTS:
        return list(values)
    bounds = [len(values) * i // SPARK_POINTS for i in range(SPARK_POINTS + 1)]
    return [max(values[first:last]) for first, last in pairwise(bounds)]


def plot(dots: Iterable[tuple[float, float, str]], label: str) -> Markup:
    """Dots over time: (seconds ago, seconds taken, class), the right edge is now."""
    found = list(dots)
    if len(found) < 2:
        return Markup("")
    oldest = max(ago for ago, _, _ in found) or 1.0
    most = max(taken for _, taken, _ in found) or 1.0
    circles = Markup("").join(
        Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(
            kind,
            LABEL_WIDTH + PLOT_WIDTH * (1 - ago / oldest),
            5 + PLOT_HEIGHT * (1 - taken / most),
        )
        for ago, taken, kind in found
    )
    lines = Markup("").join(_line(part, most) for part in (0.0, 0.5, 1.0))
    foot = PLOT_HEIGHT + LABEL_HEIGHT
    width, height = LABEL_WIDTH + PLOT_WIDTH + 8, foot + 8
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}'
        '<text x="{}" y="{}">{} ago</text><text class="end" x="{}" y="{}">now</text>'
        "</svg>"
    ).format(
        *(width, height, label, lines, circles, LABEL_WIDTH, foot),
        seconds(oldest),
        *(LABEL_WIDTH + PLOT_WIDTH, foot),
    )


def _line(part: float, most: float) -> Markup:
    y = 5 + PLOT_HEIGHT * (1 - part)
    return Markup(
        '<line x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
        '<text class="end" x="{3}" y="{4:.1f}">{5} s</text>'
    ).format(
        LABEL_WIDTH,
        LABEL_WIDTH + PLOT_WIDTH,
        y,
        LABEL_WIDTH - 6,
        y + 4,
        f"{part * most:.3g}",
    )


def bar(ours: int, others: int, total: int, label: str) -> Markup:
    """A bar of what two hold of a whole.

    >>> "ours" in bar(1, 2, 4, "memory")
    True
    """
    part = BAR_WIDTH / max(total, ours + others, 1)
    return Markup(
        '<svg class="bar" viewBox="0 0 {0} 10" preserveAspectRatio="none" role="img" '
        'aria-label="{1}"><rect class="free" width="{0}" height="10"/>'
        '<rect class="ours" width="{2:.1f}" height="10"/>'
        '<rect class="others" x="{2:.1f}" width="{3:.1f}" height="10"/></svg>'
    ).format(BAR_WIDTH, label, ours * part, others * part)
