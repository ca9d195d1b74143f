"""Keeps what is known of a failing engine before it is ended and started anew.

Keeps no prompts: stacks are without local variables, and engines log no requests
unless a fleet file asks for it. Delays a restart by a few seconds at most.
"""

import asyncio
import dataclasses
import json
import logging
import re
import shutil
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from launcher.host import process_dump
from launcher.host.logs import read_tail
from launcher.host.process import Identity
from launcher.store_link import StoreLink
from modelserver.operations.incidents import (
    INCIDENT_SUMMARY,
    INCIDENTS_FOLDER,
    Incident,
)
from modelserver.values import EngineSpec

_log = logging.getLogger(__name__)

#: Incidents that are kept at most, the newest.
KEPT_INCIDENTS = 20
#: Bytes that they may take together.
KEPT_BYTES = 50 * 1024 * 1024
#: Seconds by which the clock may be set back without its being noticed here.
AHEAD_SECONDS = 60.0
#: Lines from the end of the engine's log that are kept.
INCIDENT_LOG_LINES = 300
#: Seconds that each part may take; all are fetched at once, a later one is left out.
PART_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class EndedEngine:
    """An engine that is about to be ended by force, or that died while it served."""

    spec: EngineSpec
    host: str
    incarnation: int
    state: str
    reason: str
    process: Identity
    url: str
    log: Path
    log_offset: int
    started_at: float
    inflight: int = 0


class Incidents:
    """One folder for each incident below a fleet's run folder."""

    def __init__(self, run_dir: Path, link: StoreLink) -> None:
        self._folder = run_dir / INCIDENTS_FOLDER
        self._link = link

    async def keep(self, ended: EndedEngine) -> None:
        """Write an incident; a failure is only logged."""
        try:
            folder = await self._write(ended)
            await asyncio.to_thread(prune, self._folder, time.time())
        except OSError as error:
            _log.warning("engine=%s keeps no incident: %s", ended.spec.id, error)
        except Exception:
            # What is left of the engine has to end all the same.
            _log.exception("engine=%s keeps no incident", ended.spec.id)
        else:
            _log.info('engine=%s incident="%s"', ended.spec.id, folder)

    async def _write(self, ended: EndedEngine) -> Path:
        described = describe(ended, time.time())
        folder = self._folder / described.id
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(described), indent=1)
        (folder / INCIDENT_SUMMARY).write_text(text + "\n", encoding="utf-8")
        parts = await asyncio.gather(
            _part("log.txt", asyncio.to_thread(_last_lines, ended)),
            _part("processes.txt", asyncio.to_thread(process_dump.tree, ended.process)),
            _part("stacks.txt", process_dump.dump(ended.process)),
            _part("gpus.json", asyncio.to_thread(_gpus, self._link)),
            _part("samples.json", self._samples(ended.spec.id)),
            _part("decisions.json", self._decisions(ended.spec.id)),
        )
        for name, text in parts:
            (folder / name).write_text(process_dump.redact(text), encoding="utf-8")
        return folder

    async def _samples(self, engine: str) -> str:
        samples = await self._link.samples(engine)
        return "\n".join(json.dumps(dataclasses.asdict(each)) for each in samples)

    async def _decisions(self, engine: str) -> str:
        found = await self._link.decisions(engine)
        return "\n".join(json.dumps(each) for each in found)


def describe(ended: EndedEngine, now: float) -> Incident:
    """The summary; its id sorts by time and names engine and incarnation."""
    engine = re.sub(r"[^\w.-]", "_", ended.spec.id)
    return Incident(
        id=f"{_stamp(now)}-{engine}-{ended.incarnation}",
        at=round(now, 3),
        engine=ended.spec.id,
        model=ended.spec.model,
        host=ended.host,
        incarnation=ended.incarnation,
        state=ended.state,
        reason=ended.reason,
        pid=ended.process.pid,
        url=ended.url,
        started_at=ended.started_at,
        inflight=ended.inflight,
        log=str(ended.log),
    )


def _stamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")


async def _part(name: str, work: Awaitable[str]) -> tuple[str, str]:
    """One file's text, or why there is none."""
    try:
        async with asyncio.timeout(PART_SECONDS):
            return name, await work
    except TimeoutError:
        return name, f"not available: it took more than {PART_SECONDS:g} s\n"
    except Exception as error:
        # An incident without a part is better than an engine that stays dead.
        return name, f"not available: {error!r}\n"


def _last_lines(ended: EndedEngine) -> str:
    text = read_tail(ended.log, ended.log_offset, limit=256 * 1024)
    return "\n".join(text.splitlines()[-INCIDENT_LOG_LINES:]) + "\n"


def _gpus(link: StoreLink) -> str:
    found = [dataclasses.asdict(gpu) for gpu in link.read_host().gpus]
    return json.dumps(found, indent=1)


def prune(
    folder: Path,
    now: float,
    kept: int = KEPT_INCIDENTS,
    kept_bytes: int = KEPT_BYTES,
) -> None:
    """Remove the oldest until few and small ones are left; the newest always stays.

    Those of times that are yet to come are of a clock that was set back since: they
    count as the oldest, so that they do not push out all that happens from now on.
    """
    latest = _stamp(now + AHEAD_SECONDS)
    incidents = sorted(
        (each for each in folder.iterdir() if each.is_dir()),
        key=lambda each: (each.name < latest, each.name),
    )
    total = 0
    for place, incident in enumerate(reversed(incidents)):
        total += sum(file.stat().st_size for file in incident.iterdir())
        if place and (place >= kept or total > kept_bytes):
            shutil.rmtree(incident, ignore_errors=True)
