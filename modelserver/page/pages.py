"""Which page shows what: the whole fleet, a model, an engine, a host, a run. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from modelserver.page.reading import EngineCard, FleetReading
from modelserver.values import Outcome

_T = TypeVar("_T")

#: Alerts that are shown at once, the oldest; the others are folded up.
ALERTS_OPEN = 6
#: Decisions in the time line of the whole fleet.
DECISIONS_SHOWN = 40
#: Decisions in the time line of one engine or model.
DECISIONS_SHOWN_OF_ONE = 20


@dataclass(frozen=True, slots=True)
class FleetPage:
    """A page: its template, and what stands in it."""

    template: str
    title: str
    values: Mapping[str, object]


def fleet_page(view: FleetReading) -> FleetPage:
    """The page of the whole fleet."""
    values = {"decisions": view.decisions[:DECISIONS_SHOWN], "alerts_open": ALERTS_OPEN}
    return FleetPage("fleet.html", "Fleet", values)


def _model(view: FleetReading, name: str) -> FleetPage | None:
    card = _first(view.models, lambda each: each.status.name == name)
    if card is None:
        return None
    values = {"model": card, "decisions": _decisions(view, name)}
    return FleetPage("model.html", name, values)


def _engine(view: FleetReading, name: str) -> FleetPage | None:
    card = _first(view.engines, lambda each: each.status.id == name)
    if card is None:
        return None
    about = (name, card.status.model, card.status.host)
    orders = [each for each in view.status.orders if each.target in about]
    values = {
        "engine": card,
        "orders": orders,
        "kinds": {each.kind for each in orders if each.target == name},
        "dots": _dots(card, view.status.at),
        "decisions": _decisions(view, name),
    }
    return FleetPage("engine.html", name, values)


def _host(view: FleetReading, name: str) -> FleetPage | None:
    host = _first(view.status.hosts, lambda each: each.name == name)
    engines = [each for each in view.engines if name in each.status.hosts]
    if host is None and not engines:
        return None
    workers = [each for each in view.status.workers if each.host == name]
    values = {"name": name, "host": host, "engines": engines, "workers": workers}
    return FleetPage("host.html", name, values)


def _run(view: FleetReading, name: str) -> FleetPage | None:
    card = _first(view.runs, lambda each: each.found.run.id == name)
    return None if card is None else FleetPage("run.html", name, {"run": card})


#: The pages of one thing, by their folder.
PAGES: Mapping[str, Callable[[FleetReading, str], FleetPage | None]] = {
    "models": _model,
    "engines": _engine,
    "hosts": _host,
    "runs": _run,
}


def _first(found: Iterable[_T], is_it: Callable[[_T], bool]) -> _T | None:
    return next((each for each in found if is_it(each)), None)


def _decisions(view: FleetReading, name: str) -> list[Mapping[str, str]]:
    return view.decisions_about(name)[:DECISIONS_SHOWN_OF_ONE]


def _dots(card: EngineCard, now: float) -> list[tuple[float, float, str]]:
    """Each request: seconds ago, seconds taken, and how it went."""
    return [
        (
            now - each.ended_at,
            each.seconds,
            "ok" if each.outcome is Outcome.OK else "bad",
        )
        for each in card.samples
    ]
