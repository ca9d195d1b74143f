"""What a request should take on an engine: a fitted cost model. Pure.

The expected seconds are a constant, plus a share for every prompt token, for every
completion token, for every completion token times the mean in-flight of the engine, and
for every prompt token that the engine admitted meanwhile. The shares are never
negative, and are fitted by Huber's iteratively reweighted least squares on the relative
error, for each model on each type of GPU.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from modelserver.measured import Sample

#: A request: its prompt tokens, completion tokens, the mean in-flight of its engine,
#: the prompt tokens that the engine admitted meanwhile, and its seconds.
Row = tuple[float, float, float, float, float]

#: Rounds of reweighting; further ones change the shares by less than a thousandth.
ROUNDS = 8
#: Huber's constant: errors beyond 1.345 standard deviations count less.
HUBER = 1.345
#: A normal distribution's standard deviation over its median absolute deviation.
MAD = 1.4826
#: The least seconds that a request is expected to take.
LEAST_SECONDS = 1e-3
#: The bands of a reservoir begin at these prompt tokens ...
PROMPT_EDGES = (128.0, 512.0, 2048.0)
#: ... and at these mean in-flight requests.
INFLIGHT_EDGES = (4.0, 12.0, 32.0)
#: The number of bands.
BANDS = (len(PROMPT_EDGES) + 1) * (len(INFLIGHT_EDGES) + 1)
#: The number of requests that a band keeps.
BAND_ROWS = 128
#: A full band keeps a new request with a chance of at least 128 in 1024, so it forgets
#: slowly.
BAND_MEMORY = 1024


def row(sample: Sample, max_running: int) -> Row:
    """A request as the model takes it; its in-flight is at most ``max_running``."""
    inflight = (sample.inflight_start + sample.inflight_end) / 2
    return (
        float(sample.prompt_tokens),
        float(sample.completion_tokens),
        min(inflight, float(max_running)),
        float(sample.prompt_admitted),
        sample.seconds,
    )


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted cost model."""

    #: Seconds: constant, for a prompt token, for a completion token, for one times the
    #: mean in-flight, for a prompt token admitted meanwhile.
    shares: tuple[float, float, float, float, float]
    #: The robust standard deviation of the logarithm of measured over expected seconds.
    sigma: float
    #: The number of requests that it was fitted to.
    rows: int

    def seconds(self, of: Row) -> float:
        """The seconds that this request should take."""
        constant, prompt, completion, inflight, admitted = self.shares
        expected = constant + prompt * of[0] + admitted * of[3]
        return max(LEAST_SECONDS, expected + of[1] * (completion + inflight * of[2]))

    def log_ratios(self, samples: Iterable[Sample], max_running: int) -> list[float]:
        """``log_ratio`` of many requests, which is most of what a look costs."""
        constant, prompt, completion, inflight, admitted = self.shares
        log, most = math.log, float(max_running)
        logs = []
        for each in samples:
            mean = (each.inflight_start + each.inflight_end) / 2
            expected = constant + prompt * each.prompt_tokens
            expected += admitted * each.prompt_admitted
            expected += each.completion_tokens * (
                completion + inflight * (mean if mean < most else most)
            )
            measured = each.seconds if each.seconds > LEAST_SECONDS else LEAST_SECONDS
            logs.append(log(measured / max(LEAST_SECONDS, expected)))
        return logs

    def log_ratio(self, of: Row) -> float:
        """The logarithm of measured over expected seconds."""
        return math.log(max(of[4], LEAST_SECONDS) / self.seconds(of))


def fit(rows: Sequence[Row]) -> Fit:
    """Fit the shares to requests; meaningful from about a hundred on."""
    table = [
        (1.0, p, c, c * inflight, admitted) for p, c, inflight, admitted, _ in rows
    ]
    measured = [max(each[4], LEAST_SECONDS) for each in rows]
    expected, trust = measured, [1.0] * len(rows)
    shares = [0.0] * 5
    for _ in range(ROUNDS):
        weights = [t / (e * e) for t, e in zip(trust, expected, strict=True)]
        shares = _least_squares(table, measured, weights)
        expected = [
            max(LEAST_SECONDS, sum(map(float.__mul__, shares, each))) for each in table
        ]
        errors = [abs(m / e - 1) for m, e in zip(measured, expected, strict=True)]
        bound = HUBER * max(MAD * median(errors), 1e-6)
        trust = [min(1.0, bound / max(error, 1e-12)) for error in errors]
    logs = [math.log(m / e) for m, e in zip(measured, expected, strict=True)]
    a, b, c, d, e = shares
    return Fit((a, b, c, d, e), spread(logs), len(rows))


def spread(values: Sequence[float]) -> float:
    """The robust standard deviation of some values, from their median deviation.

    >>> round(spread([1.0, 2.0, 3.0, 4.0, 100.0]), 2)
    1.48
    """
    middle = median(values)
    return MAD * median(abs(value - middle) for value in values)


def _least_squares(
    table: Sequence[Sequence[float]],
    measured: Sequence[float],
    weights: Sequence[float],
) -> list[float]:
    """The shares, none negative, with the least weighted squared error."""
    size = len(table[0])
    matrix = [[0.0] * size for _ in range(size)]
    right = [0.0] * size
    for values, target, weight in zip(table, measured, weights, strict=True):
        for i in range(size):
            scaled = weight * values[i]
            right[i] += scaled * target
            line = matrix[i]
            for j in range(i + 1):
                line[j] += scaled * values[j]
    for i in range(size):
        for j in range(i):
            matrix[j][i] = matrix[i][j]
    return _nonnegative(matrix, right)


def _nonnegative(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Try every set of shares that may be above zero: five give only 31 sets."""
    size = len(right)
    norms = [math.sqrt(matrix[i][i]) for i in range(size)]
    used = [i for i in range(size) if norms[i] > 0]
    best, best_gain = [0.0] * size, 0.0
    for number in range(1, len(used) + 1):
        for chosen in combinations(used, number):
            lines = [
                [matrix[i][j] / (norms[i] * norms[j]) + 1e-9 * (i == j) for j in chosen]
                for i in chosen
            ]
            solved = _solve(lines, [right[i] / norms[i] for i in chosen])
            gain = sum(
                s * right[i] / norms[i] for s, i in zip(solved, chosen, strict=True)
            )
            if min(solved) >= 0 and gain > best_gain:
                best_gain, best = gain, [0.0] * size
                for s, i in zip(solved, chosen, strict=True):
                    best[i] = s / norms[i]
    return best


def _solve(lines: list[list[float]], right: list[float]) -> list[float]:
    """Solve a symmetric positive system by elimination; overwrites both arguments."""
    size = len(right)
    for i in range(size):
        for k in range(i + 1, size):
            factor = lines[k][i] / lines[i][i]
            right[k] -= factor * right[i]
            for j in range(i, size):
                lines[k][j] -= factor * lines[i][j]
    solved = [0.0] * size
    for i in reversed(range(size)):
        rest = sum(lines[i][j] * solved[j] for j in range(i + 1, size))
        solved[i] = (right[i] - rest) / lines[i][i]
    return solved


@dataclass(frozen=True, slots=True)
class Reservoir:
    """Requests for a fit, of short and long prompts, of quiet and busy engines."""

    bands: tuple[tuple[Row, ...], ...] = ((),) * BANDS
    #: The number of requests that each band has been offered.
    counts: tuple[int, ...] = (0,) * BANDS

    @property
    def rows(self) -> tuple[Row, ...]:
        """All requests that are kept."""
        return tuple(each for band in self.bands for each in band)

    @property
    def offered(self) -> int:
        """How many requests it has been offered."""
        return sum(self.counts)

    def offer(self, rows: Iterable[Row]) -> "Reservoir":
        """The reservoir after more requests; the same ones always give the same one."""
        touched: dict[int, list[Row]] = {}
        counts = list(self.counts)
        for each in rows:
            number = band(each)
            kept = touched.setdefault(number, list(self.bands[number]))
            counts[number] += 1
            if len(kept) < BAND_ROWS:
                kept.append(each)
                continue
            place = _scatter(counts[number], min(counts[number], BAND_MEMORY))
            if place < BAND_ROWS:
                kept[place] = each
        if not touched:
            return self
        bands = [
            tuple(touched[number]) if number in touched else old
            for number, old in enumerate(self.bands)
        ]
        return Reservoir(tuple(bands), tuple(counts))


def band(of: Row) -> int:
    """The number of the band that a request belongs to.

    >>> band((20, 9, 1, 20, 1.0)), band((4000, 9, 40, 4000, 1.0))
    (0, 15)
    """
    prompt = sum(of[0] >= edge for edge in PROMPT_EDGES)
    inflight = sum(of[2] >= edge for edge in INFLIGHT_EDGES)
    return prompt * (len(INFLIGHT_EDGES) + 1) + inflight


def _scatter(count: int, span: int) -> int:
    """A place below ``span`` that looks as if drawn, by Knuth's multiplicative hash."""
    return ((count * 2654435761) % 2**32) * span >> 32
