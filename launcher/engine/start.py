"""One start of one engine: its place and its process, and how it ended."""

import asyncio
import logging
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from launcher import engine_types
from launcher.engine.container import ContainerSpec, in_container, with_absolute_path
from launcher.engine.nodes import arrange_meeting
from launcher.engine.turns import find_turn
from launcher.engine_types import LOOPBACK, Place, builtin
from launcher.host import process
from launcher.host.containers import ContainerRuntime, require_image
from launcher.host.disks import is_full, try_appending, try_writing
from launcher.host.logs import read_tail
from launcher.host.process import (
    RUN,
    EngineProcess,
    Identity,
    VitalProcess,
    find_ended,
)
from launcher.host.records import Record
from launcher.host.resources import HostResources
from launcher.host.secrets import lend_key, with_key
from launcher.startup_log import diagnosis, progress, weights
from launcher.startup_log.progress import StartProgress
from modelserver.disk_errors import with_remedy
from modelserver.errors import ConfigurationError, StoreUnreachableError
from modelserver.policy.lifecycle import CannotHeal, Died, Held
from modelserver.values import EngineSpec, ModelSpec

_log = logging.getLogger(__name__)

#: Seconds in which an adopted engine that was ready must give a token again.
ADOPTED_SECONDS = 30.0
#: Seconds that one request for a first token may take; it may compile kernels.
FIRST_TOKEN_SECONDS = 60.0
#: How long a start waits for something is told in steps of 10 seconds, so that not
#: every second is news.
WAIT_STEP_SECONDS = 10
#: What is said of an engine whose files cannot be written now.
NOT_PREPARED = "this host cannot prepare its files"
#: Seconds after which an engine that lost a process that it needs counts as dead.
LOST_PROCESS_SECONDS = 1.0


@dataclass(slots=True)
class Start:
    """A start under way. Times are monotonic."""

    record: Record
    #: Its model as it was when it was started; the fleet may have another by now.
    model: ModelSpec
    #: None where somebody else runs the engine.
    process: EngineProcess | None
    url: str
    progress: StartProgress
    #: The model's files.
    files: weights.Weights
    began: float
    #: Seconds to the first token at most, 0 where that depends on the weights.
    start_seconds: float = 0.0
    #: What it is waited for: what came instead of a token when it was last asked.
    fault: str = ""
    #: Since when that is so.
    fault_since: float = 0.0
    #: The processes that it needs once it serves.
    vital: tuple[VitalProcess, ...] = ()
    #: When one of them was first missed, 0 for never.
    lost_at: float = 0.0
    #: Whether a token came.
    proved: bool = False
    #: Why it may not serve although a token came, "" where it may.
    refusal: str = ""

    @property
    def limit(self) -> float:
        """Seconds to the first token at most."""
        return self.start_seconds or progress.start_limit(self.progress.size)

    def overdue(self, now: float) -> bool:
        """Whether it is beyond its limit and makes no progress either."""
        if self.proved:
            return False
        # One that was ready has nothing to load: its log shows the past.
        moved = float("-inf") if self.record.ready else self.progress.moved
        return progress.is_overdue(now, self.began, self.limit, moved)

    def proof_seconds(self, now: float) -> float:
        """Seconds that a request for the first token may take."""
        if self.process is None:
            return FIRST_TOKEN_SECONDS
        return min(FIRST_TOKEN_SECONDS, max(1.0, self.began + self.limit - now))

    def describe_delay(self, now: float) -> str:
        """What people are told of an engine that is not ready in time."""
        said = f"not ready after {now - self.began:.0f} s (limit {self.limit:.0f} s)"
        doing = self.progress.doing
        last = f"the last thing it did: {doing}; " if doing else ""
        return f"{said}: {last}{self.fault or 'it does not listen'}"

    def note(self, fault: str) -> None:
        """Note what it is waited for now, "" for nothing."""
        if fault != self.fault:
            self.fault, self.fault_since = fault, time.monotonic()

    def describe_wait(self, now: float) -> str:
        """What it is waited for and for how long, "" for nothing."""
        seconds = int(now - self.fault_since) // WAIT_STEP_SECONDS * WAIT_STEP_SECONDS
        return self.fault + (f", for {seconds} s" if self.fault and seconds else "")

    @property
    def place(self) -> Place:
        """Where it runs."""
        record = self.record
        return Place(
            record.port,
            record.gpus,
            uuids=record.uuids or record.spec.uuids,
            meeting_port=record.meeting_port,
        )


def find_end(start: Start, log: Path, starting: bool) -> Died | CannotHeal | None:
    """How the engine ended, None while all processes that it needs live."""
    if start.refusal:
        return CannotHeal(f"{start.refusal}; see {log}")
    how = start.process.ended() if start.process else None
    if how is None:
        lost = find_ended(start.vital)
        now = time.monotonic()
        start.lost_at = 0.0 if lost is None else start.lost_at or now
        # A head that was told to end may still answer what its scheduler has finished.
        if lost is None or now - start.lost_at < LOST_PROCESS_SECONDS:
            return None
        how = f"its process {lost.title} (pid {lost.pid}) ended"
    if is_full(folder := Path(os.path.realpath(log)).parent):
        said = f"{how}; the disk of {folder} is full: make room on it"
        return Died(said, may_heal=True)
    text = read_tail(log, start.record.log_offset)
    if starting and (cause := diagnosis.find_cause(text, start.model)):
        said = f"{cause.text}; see {log}"
        return Died(said, may_heal=True) if cause.may_heal else CannotHeal(said)
    words = diagnosis.last_words(text)
    said = f", last line: {words}" if words else ""
    return Died(f"{how}{said}; see {log}", cuda=diagnosis.find_cuda_error(text))


def adopt_start(record: Record, model: ModelSpec, resources: HostResources) -> Start:
    """Take over the start that an earlier launcher made.

    ``model`` is how the fleet has it now, for records that do not say how it was.
    """
    age = record.process.birth.age_seconds if record.process.birth.known else 0.0
    model = record.model or model
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
        path = ""  # The fleet file has changed since the start.
    files = weights.weights_of(path, resources.secrets.known(model))
    return Start(
        record,
        model,
        running,
        _url(record.spec, record.port),
        StartProgress(resources.log_of(record.spec.id), record.log_offset, files),
        files,
        began=time.monotonic(),
        start_seconds=model.start_seconds,
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """A start that is decided."""

    spec: EngineSpec
    model: ModelSpec
    incarnation: int
    place: Place
    #: None for an engine outside of containers.
    runtime: ContainerRuntime | None


@dataclass(frozen=True, slots=True)
class Joining:
    """What its leader tells a node from 1 on, if an engine takes several hosts."""

    node: int
    incarnation: int
    #: Where the nodes meet.
    port: int


async def start(
    spec: EngineSpec,
    model: ModelSpec,
    resources: HostResources,
    last: int = 0,
    joining: Joining | None = None,
) -> Start | Held | Died | CannotHeal:
    """Start an engine, or say why it has to wait, failed or can never be started.

    ``last`` is its incarnation before, 0 where that is not known. With ``joining`` it
    is one of its nodes.
    """
    adapter = engine_types.adapter(model.engine)
    runtime = None
    if adapter.starts_process and (
        obstacle := await _find_obstacle(spec, model, resources)
    ):
        return obstacle
    if model.image:
        found = await asyncio.to_thread(resources.containers.find)
        if isinstance(found, str):
            return Held(found)
        runtime = found
    if adapter.starts_process:
        place = await _find_place(spec, model, resources, joining)
        if isinstance(place, str):
            return Held(place)
    else:
        place = Place(0)
    try:
        link = resources.link
        following = joining.incarnation if joining else 0
        incarnation = following or await link.next_incarnation(spec.id, last)
    except StoreUnreachableError as error:
        _forget(spec, resources)  # It may never be tried again here.
        return Held(str(error))
    try:
        async with resources.preparing:
            await asyncio.to_thread(_prepare, spec, model, runtime, resources)
        if adapter.starts_process:
            plan = _Plan(spec, model, incarnation, place, runtime)
            return await asyncio.to_thread(_begin, plan, resources)
        lend_key(model, spec.url, resources.keys)
    except ConfigurationError as error:
        _forget(spec, resources)
        if error.may_come:
            return Died(str(error), may_heal=True)
        return CannotHeal(str(error), incarnation)
    except OSError as error:
        # It waits until what is wrong with the host's files is over.
        _forget(spec, resources)
        _log.debug("engine=%s cannot be prepared", spec.id, exc_info=True)
        return Held(f"{NOT_PREPARED}: {with_remedy(error)}")
    nobody = Identity(0, 0.0, "")
    record = Record(spec, incarnation, nobody, 0, (), 0, time.time(), model=model)
    return _started(record, None, model, resources)


async def _find_obstacle(
    spec: EngineSpec, model: ModelSpec, resources: HostResources
) -> Died | Held | None:
    """What of this host's files keeps a start from a place, and from a number."""
    if missing := await resources.files.find_missing(model):
        return Died(missing, may_heal=True)
    try:
        await asyncio.to_thread(try_writing, resources.logs)
        await asyncio.to_thread(try_appending, resources.log_of(spec.id))
    except OSError as error:
        return Held(f"{NOT_PREPARED}: {with_remedy(error)}")
    return None


async def _find_place(
    spec: EngineSpec,
    model: ModelSpec,
    resources: HostResources,
    joining: Joining | None,
) -> Place | str:
    """The place of an engine's node on this host, or why there is none now."""
    node = joining.node if joining else 0
    # One that joins others does not let them wait.
    if node == 0 and (first := await find_turn(spec, model, resources)):
        return f"waits for {first}, which loads the same files"
    place = await resources.allocation.allocate(spec.of_node(node), model)
    if isinstance(place, str):
        return place
    port = joining.port if joining else place.meeting_port
    meeting = arrange_meeting(spec, node, port, resources.addresses())
    if isinstance(meeting, str):
        _forget(spec, resources)
        return meeting
    return replace(place, meeting=meeting)


def _forget(spec: EngineSpec, resources: HostResources) -> None:
    resources.records.remove(spec.id)
    resources.allocation.release(spec.id)


def _prepare(
    spec: EngineSpec,
    model: ModelSpec,
    runtime: ContainerRuntime | None,
    resources: HostResources,
) -> None:
    if runtime is None:
        filled = resources.secrets.fill(model, spec)
        engine_types.adapter(model.engine).prepare(filled, resources.home)
        return
    records = resources.records.read_all()
    resources.containers.sweep(runtime, {record.process.mark for record in records})
    require_image(runtime, model.image)


def _begin(plan: _Plan, resources: HostResources) -> Start:
    """Start its process. Reads and writes disks, which may not answer for long."""
    spec, model, place = plan.spec, plan.model, plan.place
    adapter = engine_types.adapter(model.engine)
    filled = resources.secrets.fill(model, spec)
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
        node=place.meeting.node if place.meeting else 0,
        meeting_port=place.meeting.port if place.meeting else 0,
    )
    # Before the process: a launcher that crashes in between leaves none unknown.
    resources.records.write(record)
    title = f"engine={spec.id} incarnation={plan.incarnation}"
    run = {RUN: str(resources.logs.parent)}
    launch = replace(launch, environment={**launch.environment, **run})
    launch = with_key(launch, model, _url(spec, place.port), resources.keys)
    if plan.runtime:
        gpus = place.uuids or tuple(map(str, place.gpus))
        labels = resources.containers.labels(spec.id)
        container = ContainerSpec(
            plan.runtime, model.image, identity.container, labels, gpus
        )
        container = replace(container, arguments=model.container_args)
        launch = in_container(launch, filled, container)
    kept = resources.allocation.keep(spec.id, identity.mark)
    running = process.start(launch, log, title, identity, kept)
    record = replace(record, process=running.identity, capacity=launch.running)
    try:
        resources.records.write(record)
    except OSError:
        running.kill()  # No later launcher would know of it.
        raise
    return _started(record, running, model, resources)


def _url(spec: EngineSpec, port: int) -> str:
    return spec.url or f"http://{LOOPBACK}:{port}"
