"""Templates into HTML. All that stands in the store is escaped."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from modelserver.inventory import gib
from modelserver.operations.words import (
    clock,
    figures_of,
    notes_of,
    ordered,
    seconds,
    sentence,
)
from modelserver.page import charts
from modelserver.page.figures import ours_and_others
from modelserver.values import EngineState

#: Beside this module.
TEMPLATES = Path(__file__).parent / "templates"
#: How engines' states look; others look like nothing in particular.
TONES: Mapping[str, str] = {
    EngineState.READY: "good",
    EngineState.DEGRADED: "warn",
    EngineState.DRAINING: "warn",
    EngineState.STARTING: "warn",
    EngineState.PENDING: "warn",
    EngineState.BACKOFF: "bad",
    EngineState.FATAL: "bad",
    "running": "good",
    "completed": "good",
    "paused": "warn",
    "pausing": "warn",
    "waiting": "warn",
    "cancelling": "warn",
    "failed": "bad",
    "silent": "bad",
    "stopped": "warn",
    "down": "bad",
}


class Drawing:
    """The templates, read once."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "bar": charts.bar,
            "clock": clock,
            "figures": figures_of,
            "gib": gib,
            "notes": notes_of,
            "number": lambda value: f"{value:,}",
            "ordered": ordered,
            "ours_and_others": ours_and_others,
            "path": lambda name: quote(name, safe=""),
            "plot": charts.plot,
            "rate": lambda value: f"{value:,.1f}",
            "seconds": seconds,
            "sentence": sentence,
            "spark": charts.spark,
            "tone": lambda state: TONES.get(state, ""),
        }

    def draw(self, template: str, **values: object) -> Markup:
        """A template with these values."""
        return Markup(self._templates.get_template(template).render(values))
