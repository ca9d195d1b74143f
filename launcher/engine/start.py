"""One start of one engine: a place, a process, and the question whether it is ready."""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from launcher import engine_types
from launcher.engine.container import ContainerSpec, in_container, with_absolute_path
from launcher.engine_types import LOOPBACK, Place, builtin
from launcher.host import process
from launcher.host.containers import Runtime, require_image
from launcher.host.process import (
    EngineProcess,
    Identity,
    VitalProcess,
    find_ended,
    vital_processes,
)
from launcher.host.records import Record
from launcher.host.resources import HostResources
from launcher.host.secrets import lend_key, with_key
from launcher.startup_log import diagnosis, progress, weights
from launcher.startup_log.progress import StartProgress
from modelserver.engine_client import EngineFault, prove
from modelserver.errors import ConfigurationError, StoreUnreachableError
from modelserver.policy.lifecycle import CannotHeal, Died, Held
from modelserver.values import EngineSpec, ModelSpec

_log = logging.getLogger(__name__)

#: An adopted engine that was ready has so long to prove itself again.
ADOPTED_SECONDS = 30.0
#: How long one question for a first token may take; a first one may compile kernels.
FIRST_TOKEN_SECONDS = 60.0
#: How long the cheap question may take.
KNOCK_SECONDS = 2.0
#: For so long an engine may outlive a process that it needs, in seconds.
LOST_PROCESS_SECONDS = 1.0
#: How long a new engine may take to settle.
SETTLE_CALL_SECONDS = 5.0


@dataclass(slots=True)
class Start:
    """A start under way; ``process`` is None where somebody else runs the engine.

    ``began`` is a monotonic time; ``start_seconds`` is how many seconds a token may take, 0
    where that depends on the weights. ``fault`` is what came instead of a token when it
    was last asked for one; ``vital`` are the processes that it needs once it serves,
    ``lost_at`` when one of them was first missed, 0 for never; ``proved`` is whether a
    token came.
    """

    record: Record
    process: EngineProcess | None
    url: str
    progress: StartProgress
    began: float
    start_seconds: float = 0.0
    fault: str = ""
    vital: tuple[VitalProcess, ...] = ()
    lost_at: float = 0.0
    proved: bool = False

    @property
    def limit(self) -> float:
        """Seconds that it may take to the first token."""
        return self.start_seconds or progress.start_limit(self.progress.size)

    def overdue(self, now: float) -> bool:
        """Whether it is beyond its limit and does not get on either."""
        if self.proved:
            return False
        # One that was ready has nothing to load: its log shows the past.
        moved = float("-inf") if self.record.ready else self.progress.moved
        return progress.is_overdue(now, self.began, self.limit, moved)

    def proof_seconds(self, now: float) -> float:
        """How long a question for the first token may take."""
        if self.process is None:
            return FIRST_TOKEN_SECONDS
        return min(FIRST_TOKEN_SECONDS, max(1.0, self.began + self.limit - now))

    def describe_delay(self, now: float) -> str:
        """What an engine that is not ready in time is told of."""
        said = f"not ready after {now - self.began:.0f} s (limit {self.limit:.0f} s)"
        doing = self.progress.doing
        last = f"the last thing it did: {doing}; " if doing else ""
        return f"{said}: {last}{self.fault or 'it does not listen'}"

    @property
    def place(self) -> Place:
        """Where it runs."""
        record = self.record
        return Place(record.port, record.gpus, uuids=record.uuids or record.spec.uuids)


def find_end(start: Start, log: Path, starting: bool) -> Died | CannotHeal | None:
    """What the end of a process that it needs means, None while all of them live."""
    how = start.process.ended() if start.process else None
    if how is None:
        lost = find_ended(start.vital)
        now = time.monotonic()
        start.lost_at = 0.0 if lost is None else start.lost_at or now
        # One that was told to end may still hand over what its core has finished.
        if lost is None or now - start.lost_at < LOST_PROCESS_SECONDS:
            return None
        how = f"its process {lost.title} (pid {lost.pid}) ended"
    text = process.read_tail(log, start.record.log_offset)
    if starting and (cause := diagnosis.find_hopeless_cause(text)):
        return CannotHeal(f"{cause}; see {log}")
    words = diagnosis.last_words(text)
    said = f", last line: {words}" if words else ""
    return Died(f"{how}{said}; see {log}")


def adopt_start(record: Record, model: ModelSpec, resources: HostResources) -> Start:
    """The start that an earlier launcher made."""
    age = max(0.0, time.time() - record.started_at)
    begun = _started(record, EngineProcess(record.process), model, resources)
    begun.began = time.monotonic() - age
    if record.ready:
        begun.began, begun.start_seconds = time.monotonic(), ADOPTED_SECONDS
    return begun


def _started(
    record: Record,
    running: EngineProcess | None,
    model: ModelSpec,
    resources: HostResources,
) -> Start:
    try:
        path = builtin.model_path(model, resources.home)
    except ConfigurationError:
        path = ""  # The fleet file has changed since.
    files = weights.weights_of(path, resources.secrets.known(model))
    return Start(
        record,
        running,
        _url(record.spec, record.port),
        StartProgress(resources.log_of(record.spec.id), record.log_offset, files),
        began=time.monotonic(),
        start_seconds=model.start_seconds,
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """A start that is decided; ``runtime`` is None outside of containers."""

    spec: EngineSpec
    model: ModelSpec
    incarnation: int
    place: Place
    runtime: Runtime | None


async def start(
    spec: EngineSpec, model: ModelSpec, resources: HostResources
) -> Start | Held | CannotHeal:
    """Start an engine, or say why it has to wait or can never be started."""
    adapter = engine_types.adapter(model.engine)
    runtime = None
    if model.image:
        found = await asyncio.to_thread(resources.containers.find)
        if isinstance(found, str):
            return Held(found)
        runtime = found
    if adapter.starts_process:
        place = await resources.allocation.allocate(spec, model)
        if isinstance(place, str):
            return Held(place)
    else:
        place = Place(0)
    try:
        incarnation = await resources.link.next_incarnation(spec.id)
    except StoreUnreachableError as error:
        return Held(str(error))
    try:
        async with resources.preparing:
            await asyncio.to_thread(_prepare, model, runtime, resources)
        if adapter.starts_process:
            return _begin(_Plan(spec, model, incarnation, place, runtime), resources)
        lend_key(model, spec.url, resources.keys)
    except ConfigurationError as error:
        resources.records.remove(spec.id)
        resources.allocation.release(spec.id)
        return CannotHeal(str(error), incarnation)
    nobody = Identity(0, 0.0, "")
    record = Record(spec, incarnation, nobody, 0, (), 0, time.time(), model=model)
    return _started(record, None, model, resources)


def _prepare(
    model: ModelSpec, runtime: Runtime | None, resources: HostResources
) -> None:
    if runtime is None:
        engine_types.adapter(model.engine).prepare(model, resources.home)
        return
    records = resources.records.read_all()
    resources.containers.sweep(runtime, {record.process.mark for record in records})
    require_image(runtime, model.image)


def _begin(plan: _Plan, resources: HostResources) -> Start:
    spec, model, place = plan.spec, plan.model, plan.place
    adapter = engine_types.adapter(model.engine)
    filled = resources.secrets.fill(model)
    filled = with_absolute_path(filled) if plan.runtime else filled
    launch = adapter.launch(filled, place, resources.home)
    log = resources.log_of(spec.id)
    identity = process.new_identity(plan.runtime.program if plan.runtime else "")
    record = Record(
        spec=spec,
        incarnation=plan.incarnation,
        process=identity,
        port=place.port,
        gpus=place.gpus,
        uuids=place.uuids,
        log_offset=process.rotate(log),
        started_at=time.time(),
        model=model,
    )
    # Before there is a process, so that no crash of the launcher leaves one unknown.
    resources.records.write(record)
    title = f"engine={spec.id} incarnation={plan.incarnation}"
    launch = with_key(launch, model, _url(spec, place.port), resources.keys)
    if plan.runtime:
        gpus = place.uuids or tuple(map(str, place.gpus))
        labels = resources.containers.labels(spec.id)
        box = ContainerSpec(plan.runtime, model.image, identity.container, labels, gpus)
        box = replace(box, arguments=model.container_args)
        launch = in_container(launch, filled, box)
    running = process.start(launch, log, title, identity)
    record = replace(record, process=running.identity)
    resources.records.write(record)
    return _started(record, running, model, resources)


def _url(spec: EngineSpec, port: int) -> str:
    return spec.url or f"http://{LOOPBACK}:{port}"


async def try_ready(
    session: aiohttp.ClientSession, start: Start, model: ModelSpec
) -> bool:
    """Whether the engine gives a token now; sets ``start.fault`` if it does not.

    Knocks first: an engine that does not listen yet is not worth a request.
    """
    if start.process is not None:
        await asyncio.to_thread(start.progress.look)
    timeout = aiohttp.ClientTimeout(total=KNOCK_SECONDS)
    try:
        async with session.get(start.url + "/v1/models", timeout=timeout):
            pass  # Whatever it says: endpoints lie, a token does not.
    except (aiohttp.ClientError, TimeoutError):
        start.fault = f"nothing listens at {start.url}"
        return False
    try:
        seconds = start.proof_seconds(time.monotonic())
        await prove(session, start.url, model.name, model.kind, seconds)
    except EngineFault as error:
        start.fault = str(error)
        return False
    start.proved = True
    if start.process is not None:
        await asyncio.to_thread(start.process.look_inside)
        start.record = replace(start.record, process=start.process.identity)
        start.vital = vital_processes(start.process.identity)
        if path := engine_types.adapter(model.engine).settle_path:
            await _settle(session, start.url + path)
    return True


async def _settle(session: aiohttp.ClientSession, url: str) -> None:
    """Have a new engine do what is better done before it serves."""
    timeout = aiohttp.ClientTimeout(total=SETTLE_CALL_SECONDS)
    try:
        async with session.post(url, timeout=timeout) as response:
            if response.status != 200:
                _log.warning("%s answered %d", url, response.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        # It only serves less smoothly.
        _log.warning("%s failed: %r", url, error)
