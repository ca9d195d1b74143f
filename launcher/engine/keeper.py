"""Keeps one engine as wanted: applies the table of states and does what follows.

``tick`` never waits: what takes time (a start, a proof, a stop) is a task beside it.
"""

import asyncio
import dataclasses
import logging
import time

from launcher.engine.background import BackgroundTasks, death_by
from launcher.engine.canaries import first_round
from launcher.engine.checkup import Checkup
from launcher.engine.failed_place import FailedPlace
from launcher.engine.nodes import NodeWatch
from launcher.engine.readiness import try_ready
from launcher.engine.report import engine_report, log_change, with_wish
from launcher.engine.start import Start, adopt_start, find_end, start
from launcher.engine.stop import clear_up, stop
from launcher.engine.vector_check import find_unsteady_vector
from launcher.engine_types import adapter
from launcher.engine_types.model_config import vocabulary
from launcher.host.records import Record
from launcher.host.resources import HostResources
from launcher.host.shortages import find_shortage
from launcher.store_link import StoreView
from modelserver.policy.changes import restarts, sentence
from modelserver.policy.lifecycle import (
    CannotHeal,
    Degraded,
    Died,
    DrainAsked,
    Event,
    Held,
    Life,
    Lost,
    Proved,
    Recovered,
    RetryDue,
    Started,
    StartTimedOut,
    Stopped,
    Wanted,
    advance,
)
from modelserver.values import (
    Cause,
    EngineReport,
    EngineSpec,
    EngineState,
    ModelSpec,
    Wish,
)

_log = logging.getLogger(__name__)

#: Seconds before a place is looked for again.
HELD_SECONDS = 1.0
#: Seconds between two questions whether a starting engine is ready.
READY_PAUSE_SECONDS = 0.3
#: Seconds after which workers have reported what they pulled before they saw a drain.
LAST_PULL_SECONDS = 2.0
#: An engine that somebody else runs is lost after two failed proofs of life.
LOST_PROOFS = 2


class Keeper:
    """One engine of this host, from its first wish to its end."""

    def __init__(
        self, spec: EngineSpec, model: ModelSpec, resources: HostResources
    ) -> None:
        self.spec = spec
        self.model = model
        self.wanted = True
        self.life = Life(since=time.monotonic())
        self.log = resources.log_of(spec.id)
        self._wish = Wish(spec)
        #: The model as of its last start, or of the last try.
        self._tried = model
        #: False for an adopted engine that has not yet had the time to prove itself.
        self.is_reported = True
        self._resources = resources
        self._adapter = adapter(model.engine)
        #: The last incarnation that died while it served.
        self._died_serving = 0
        #: The last incarnation on whose port somebody else listened.
        self._called_off = 0
        self._failed = FailedPlace()
        #: The last round of canaries that it was through.
        self._rounds = 0
        self._start: Start | None = None
        self._checkup: Checkup | None = None
        self._nodes = NodeWatch()
        self._background = BackgroundTasks(resources.wake)
        self._next_try = self._deadline = 0.0
        self._in_a_hurry = False
        self._stop_reason = ""
        self._alive_at = 0.0
        self._hung_seconds = 0
        self._vocabulary = 0
        self._inflight = 0

    # Wishes.

    def adopt(self, record: Record) -> None:
        """Go on with an engine that an earlier launcher started."""
        self._rounds = record.canary
        self._start = adopt_start(record, self.model, self._resources)
        self._tried = self._start.model
        self._adapter = adapter(self._tried.engine)
        adopt, place = self._resources.allocation.adopt, self._start.place
        adopt(self.spec, self._tried, place, record.ready, record.process.mark)
        self._move(Started(record.incarnation, "adopted"))
        self.is_reported = not record.ready

    def apply_wish(self, wish: Wish) -> None:
        """Go by a wish; the same wish again changes nothing."""
        self.wanted, self._wish = True, wish
        reason, cause = "", Cause.CHANGED
        if wish.spec != self.spec:
            own = (wish.spec.extra_args, wish.spec.environment)
            same = own == (self.spec.extra_args, self.spec.environment)
            reason = "its place changed" if same else "its [[engines]] changed"
        elif wish.relaunch and wish.relaunch == self.life.incarnation:
            reason, cause = wish.reason or "relaunch asked for", wish.cause
        if (
            self.life.state is EngineState.FATAL
            and reason
            and not self._background.has_job
        ):
            self._move(Wanted())
        elif reason and self._start is not None:
            self._drain(reason, cause)
        if self._start is None and not self._background.has_job:
            self.spec = wish.spec

    def stop(self, reason: str, at_once: bool = False) -> None:
        """Drain and end it for good; ``at_once`` gives up what it has in flight."""
        self.wanted = False
        self._in_a_hurry = self._in_a_hurry or at_once
        self._stop_reason = reason

    @property
    def stale(self) -> str:
        """What changed in the fleet since its start and needs a restart, or ""."""
        if self._tried == self.model:
            return ""
        return sentence(restarts(self._tried, self.model))

    @property
    def gone(self) -> bool:
        """Whether it has ended for good."""
        stopped = self.life.state is EngineState.STOPPED
        return stopped and not self.wanted and not self._background.has_job

    @property
    def may_serve(self) -> bool:
        """Whether it serves, or was adopted and is about to prove that it does."""
        return self.wanted and (self.life.state.serves or not self.is_reported)

    def leave_running(self) -> None:
        """Leave the engine to the next launcher and ask it nothing more."""
        self._background.drop_question()
        if self._checkup is not None:
            self._checkup.stop_asking()

    # The loop.

    def tick(self, now: float, view: StoreView) -> None:
        """Do what is due now."""
        self._collect()
        load = view.loads.get(self.spec.id)
        self._inflight = load.inflight if load else 0
        if not self.wanted:
            self._drain(self._stop_reason, Cause.RELEASED)
        elif self._tried != self.model and not self._background.has_job:
            self._catch_up()
        match self.life.state:
            case EngineState.PENDING:
                if not self._background.has_job and now >= self._next_try:
                    self._tick_pending(now, view)
            case EngineState.STARTING:
                self._tick_starting(now, view)
            case EngineState.READY | EngineState.DEGRADED:
                self._tick_serving(now, view)
            case EngineState.DRAINING:
                self._tick_draining(now, view)
            case EngineState.BACKOFF if not self._background.has_job:
                self._move(RetryDue())
            case EngineState.STOPPED if self.wanted and not self._background.has_job:
                self._move(Wanted())

    def _catch_up(self) -> None:
        """Start anew by the changed fleet, unless it serves: then control says when."""
        match self.life.state:
            case EngineState.STARTING if self.stale:
                self._drain(self.stale, Cause.CHANGED)
            case EngineState.BACKOFF:
                self._drain("its section of the fleet changed", Cause.CHANGED)
            case EngineState.FATAL:
                self._move(Wanted())

    def _tick_pending(self, now: float, view: StoreView) -> None:
        if waits := self._nodes.find_obstacle(self.spec, self.model, view):
            self._next_try = now + HELD_SECONDS
            self._move(Held(waits))
        else:
            self._background.start_job(self._launch())

    def _tick_starting(self, now: float, view: StoreView) -> None:
        if self._is_over(now, view) or self._start is None:
            return
        if self._start.progress.has_loaded:
            self._resources.turns.end(self.spec.id)
        if self._adapter.starts_process and self._start.overdue(now):
            self._fail(
                StartTimedOut(f"{self._start.describe_delay(now)}; see {self.log}")
            )
        elif not self._background.has_question and now >= self._next_try:
            self._background.start_question(self._prove(self._start))

    def _tick_serving(self, now: float, view: StoreView) -> None:
        if self._is_over(now, view) or self._checkup is None:
            return
        self._checkup.tick(now, view, self._wish)
        self._rounds, liveness = self._checkup.rounds, self._checkup.liveness
        self._alive_at = liveness.alive_at
        self._hung_seconds = liveness.silent_seconds(now, view.loads.get(self.spec.id))
        why = self._wish.degraded
        if why and (self.life.state, self.life.reason) != (EngineState.DEGRADED, why):
            self._move(Degraded(why))
        elif not why:
            self._move(Recovered())
        if who := self._checkup.stranger:
            # Answers may be another's: what is under way runs elsewhere.
            self._called_off = self.life.incarnation
            self._drain(f"{who} listens on its port, too", Cause.CHANGED)
        elif not self._adapter.starts_process and liveness.failed_proofs >= LOST_PROOFS:
            self._move(Lost(f"{self.spec.url} gives no token: {liveness.fault}"))

    def _tick_draining(self, now: float, view: StoreView) -> None:
        if not self._background.has_job and (
            now >= self._deadline or self._is_drained(view)
        ):
            self._background.start_job(self._stop_engine())

    def _is_drained(self, view: StoreView) -> bool:
        waited = view.read_at - self.life.since
        if waited < 0:
            return False
        settled = waited >= LAST_PULL_SECONDS or not view.loads
        return settled and not self._inflight

    def _is_over(self, now: float, view: StoreView) -> bool:
        """Whether it died, or has to end with one of its nodes."""
        if self._start is None:
            return False
        starting = self.life.state is EngineState.STARTING
        event = find_end(self._start, self.log, starting) or self._nodes.find_end(
            self.spec, self.life.incarnation, view, self._alive_at, now
        )
        if isinstance(event, DrainAsked):
            self._drain(event.reason, event.cause)
        elif event is not None:
            self._fail(event)
        return event is not None

    # What takes time: tasks beside the loop.

    async def _launch(self) -> None:
        self._next_try = time.monotonic() + HELD_SECONDS
        self._tried = self.model
        self._adapter = adapter(self.model.engine)
        last = self.life.incarnation
        begun = await start(self.spec, self.model, self._resources, last)
        if not isinstance(begun, Start):
            self._resources.turns.end(self.spec.id)
            if isinstance(begun, Died):
                self._failed = self._failed.after(begun, self.spec.uuids)
            self._move(begun)
            return
        self._start = begun
        self._nodes.begin()
        self._alive_at = 0.0
        self._next_try = 0.0
        self._move(Started(begun.record.incarnation))

    async def _prove(self, start: Start) -> None:
        if not await try_ready(self._resources.session, start):
            self._next_try = time.monotonic() + READY_PAUSE_SECONDS
            return
        known, first = start.record.ready, []
        if start.process is not None and not known:
            session, url = self._resources.session, start.url
            start.refusal = await find_unsteady_vector(session, url, self.model)
            if start.refusal:
                return
            first = await first_round(self._resources.session, start.url, self.model)
        record = dataclasses.replace(start.record, ready=True, canary=self._rounds)
        start.record = record
        self._resources.records.update(record)
        has_base = known or bool(first)
        self._checkup = Checkup(
            start, self.model, self._resources, first, has_base, self._rounds
        )
        self._vocabulary = await asyncio.to_thread(vocabulary, start.files)
        self._alive_at = time.monotonic()
        self._failed = FailedPlace()
        self._resources.turns.end(self.spec.id)
        self._resources.allocation.mark_loaded(self.spec.id)
        self._move(Proved())

    async def _stop_engine(self) -> None:
        if self._start is not None:
            load, hurry = self._inflight, lambda: self._in_a_hurry
            await stop(self._start, self.life, load, self._resources, hurry)
        await self._clear_up()
        self._move(Stopped())

    async def _clear_up(self, incident: Life | None = None) -> None:
        begun, self._start, load = self._start, None, self._inflight
        await clear_up(self.spec.id, begun, incident, load, self._resources)

    # Moves.

    def _drain(self, reason: str, cause: Cause) -> None:
        if self.life.state is EngineState.PENDING and self._background.has_job:
            return  # It is about to be STARTING; a later tick drains it.
        unused = self.life.state is EngineState.STARTING
        if self._move(DrainAsked(reason, cause)):
            has_work = not unused and cause is not Cause.HUNG
            seconds = self.model.drain_seconds if has_work else 0.0
            self._deadline = time.monotonic() + seconds
            self._background.drop_question()
        if self._in_a_hurry:
            self._deadline = 0.0

    def _fail(self, event: Died | StartTimedOut | CannotHeal) -> None:
        """Give up a failed start or a dead engine; ends the rest of its processes."""
        self._background.drop_question()
        served = self.life.state.serves
        if isinstance(event, Died) and self._start:
            self._failed = self._failed.after(event, self._start.place.uuids)
        if isinstance(event, Died) and event.cuda and self._start:
            uuids = self._start.place.uuids
            self._resources.gpu_faults.note_death(self.spec.id, uuids, event.cuda)
        incident = None
        if served or isinstance(event, StartTimedOut):
            incident = dataclasses.replace(self.life, reason=event.reason)
        self._move(event)
        self._background.start_job(self._clear_up(incident))

    def _move(self, event: Event) -> bool:
        now = time.monotonic()
        before, self.life = self.life, advance(self.life, event, now)
        if self.life is before:
            return False
        if isinstance(event, Died) and before.state.serves:
            self._died_serving = before.incarnation
        if self._checkup is not None and not self.life.state.serves:
            self._checkup.stop()
            self._checkup, self._hung_seconds = None, 0
        if self.life.state is not EngineState.STARTING:
            self.is_reported = True
        if (self.life.state, self.life.reason) != (before.state, before.reason):
            log_change(self.spec.id, before, self.life, now)
            self._resources.wake()
        return True

    def _collect(self) -> None:
        """Take the results of tasks; an error that none handled counts as a death."""
        error = self._background.collect()
        asks = self.life.state is EngineState.STARTING
        if error and self._start and asks and (shortage := find_shortage(error)):
            self._start.note(shortage)  # It could not be asked now.
        elif error:
            _log.error("engine=%s", self.spec.id, exc_info=error)
            self._fail(death_by(error))

    def report(self, view: StoreView) -> EngineReport:
        """What the store is told of the engine."""
        alive_at = view.store_time(self._alive_at) if self._alive_at else 0.0
        told = engine_report(
            self.spec, self.model, self._resources.host, self.life, self._start
        )
        told = self._nodes.with_followers(told, self.spec, view)
        told = with_wish(told, self._wish, self.model)
        return dataclasses.replace(
            told,
            since=round(view.store_time(self.life.since), 3),
            alive_at=round(alive_at, 3),
            died=self._died_serving,
            abort=max(told.abort, self._called_off),
            failed_on=self._failed.given_up,
            hung_seconds=self._hung_seconds,
            vocabulary=self._vocabulary,
            stale=self.stale if self.life.state.serves else "",
            log=str(self.log) if self._adapter.starts_process else "",
        )
