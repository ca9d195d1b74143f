"""What is kept of engines that hung, died or never got ready: one folder each time."""

import json
from dataclasses import dataclass
from pathlib import Path

from modelserver.decoding import decode

#: The folder within a run folder that holds them.
INCIDENTS_FOLDER = "incidents"
#: The file in an incident's folder that describes it.
INCIDENT_SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident. Times are seconds since the epoch by the host's clock."""

    #: The name of its folder.
    id: str
    at: float
    engine: str
    model: str
    host: str
    incarnation: int
    #: The engine's state before it ended.
    state: str
    #: Why it was ended, or how it died.
    reason: str
    pid: int = 0
    url: str = ""
    started_at: float = 0.0
    #: How many requests workers had on it.
    inflight: int = 0
    #: Path of the engine's log.
    log: str = ""


def read_incidents(run_dir: Path) -> tuple[Incident, ...]:
    """The incidents that this host keeps, oldest first, without damaged ones."""
    found = []
    for path in sorted((run_dir / INCIDENTS_FOLDER).glob(f"*/{INCIDENT_SUMMARY}")):
        try:
            found.append(_parse(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue  # Being written, or being removed.
    return tuple(sorted(found, key=lambda each: each.at))


def _parse(text: str) -> Incident:
    return decode(Incident, json.loads(text))
