"""What is kept of an engine that had to be started anew: one folder for each time."""

import json
from dataclasses import dataclass
from pathlib import Path

from modelserver.decoding import decode

#: The folder of a run folder that holds them, and the file that describes each.
FOLDER = "incidents"
SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident. Times are seconds since the epoch by the host's clock.

    ``state`` is what the engine was in, ``reason`` why it was ended or how it died;
    ``inflight`` counts requests that workers had on it.
    """

    id: str
    at: float
    engine: str
    model: str
    host: str
    incarnation: int
    state: str
    reason: str
    pid: int = 0
    url: str = ""
    started_at: float = 0.0
    inflight: int = 0
    log: str = ""


def read_incidents(run_dir: Path) -> tuple[Incident, ...]:
    """Those that this host keeps of a fleet, oldest first; without damaged ones."""
    found = []
    for path in sorted((run_dir / FOLDER).glob(f"*/{SUMMARY}")):
        try:
            found.append(_parse(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue  # Being written, or being removed.
    return tuple(sorted(found, key=lambda each: each.at))


def _parse(text: str) -> Incident:
    return decode(Incident, json.loads(text))
