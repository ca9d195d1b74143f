"""Times, GPUs and decisions in plain words, for commands and the fleet page."""

from collections.abc import Mapping
from datetime import datetime

from modelserver.inventory import Gpu
from modelserver.policy.orders import DRAIN, DRAIN_HOST, MOVE, PAUSE
from modelserver.values import Order

#: What is said of what operators have ordered, by the kind of order.
ORDERED = {
    DRAIN: "is drained",
    DRAIN_HOST: "is drained",
    PAUSE: "is paused",
    MOVE: "is kept on host {host}",
}
#: What stands before the figures of a decision.
INDENT = " " * 21
#: Values that are not figures: the sentence has them, or they are references.
_SAID = frozenset(
    {"id", "engine", "action", "at", "model", "reason", "incarnation", "snapshot"}
)
#: Values that repeat what the sentence says.
_REPEATS = ("verdict", "because", "hold", "degraded")


def notes_of(gpu: Gpu) -> list[str]:
    """What is to be known of a GPU that is not faulty."""
    left_out = [f"left out: {gpu.left_out}"] * bool(gpu.left_out)
    xids = [f"XID {number}" for number in gpu.xids]
    return [*left_out, *gpu.notes, *gpu.throttled, *xids]


def clock(at: float) -> str:
    """A time for people, in this host's time zone."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def seconds(value: float | None) -> str:
    """Seconds for people: "0.123 s", "4.5 s", "12 min"; "-" for None.

    >>> seconds(0.1234), seconds(4.49), seconds(750), seconds(90_000), seconds(None)
    ('0.123 s', '4.5 s', '12 min', '25 h', '-')
    """
    if value is None:
        return "-"
    if value < 1:
        return f"{value:.3f} s"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.0f} h"


def ordered(order: Order) -> str:
    """What an operator ordered, by whom, until when and why."""
    what = ORDERED.get(order.kind, order.kind).format(host=order.host)
    until = f" until {clock(order.until)}" * bool(order.until)
    reason = f": {order.reason}" * bool(order.reason)
    return f"{order.target} {what} by {order.who}{until}{reason}"


def in_words(decision: Mapping[str, str]) -> str:
    """One decision: when, what and why; in a second line the figures behind it."""
    first = f"{clock(float(decision['at']))}  {sentence(decision)}"
    figures = ", ".join(figures_of(decision))
    return first + (f"\n{INDENT}{figures}" if figures else "")


def sentence(decision: Mapping[str, str]) -> str:
    """What was decided, and why."""
    engine, reason = decision.get("engine", ""), decision.get("reason", "")
    match decision["action"]:
        case "want":
            came = decision.get("was_on")
            moved = came and came != decision.get("host")
            start = f"{engine} moved from {came} to" if moved else f"{engine} wanted on"
            return f"{start} host {decision.get('host', '')}"
        case "relaunch":
            what = f"incarnation {decision.get('incarnation', '')} of {engine}"
            return f"{what} relaunched: {reason}"
        case "drop":
            return f"{engine} wanted no longer: {reason}"
        case "treat":
            return f"{engine} {_treated(decision)}: {reason}"
        case "alert":
            return f"people told about {engine}: {reason}"
        case "rebalance":
            return reason
    return f"{engine} {decision['action']}: {reason}"


def _treated(decision: Mapping[str, str]) -> str:
    if decision.get("hold"):
        return "gets nothing new"
    if decision.get("degraded"):
        return f"serves as degraded, at most {decision.get('limit', '?')} at once"
    limit = decision.get("limit", "0")
    return "serves again" + (f", at most {limit} at once" if limit != "0" else "")


def figures_of(decision: Mapping[str, str]) -> list[str]:
    """The figures that it was decided from, each with its name."""
    at, reason = float(decision["at"]), decision.get("reason", "")
    found = []
    for name, value in decision.items():
        if not value or name in _SAID or (name, value) == ("limit", "0"):
            continue
        if decision["action"] == "want" and name in ("host", "was_on"):
            continue
        if name in _REPEATS and value in (reason, *_earlier(decision, name)):
            continue
        if name == "alive_at":
            found.append(f"last token {at - float(value):.1f} s before")
        elif name == "since":
            found.append(f"in its state for {at - float(value):.1f} s")
        else:
            found.append(f"{name.replace('_', ' ')} {value}")
    return found


def _earlier(decision: Mapping[str, str], name: str) -> list[str]:
    """The repeating values that come before this one."""
    before = _REPEATS[: _REPEATS.index(name)]
    return [decision[each] for each in before if each in decision]
