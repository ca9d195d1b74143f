"""Keeps one node of an engine whose leader is on another host.

It starts when its leader does, with the same incarnation, and ends when its leader's
report says that this one is over. Where it ends by itself it reports that, and its
leader ends the engine.
"""

import asyncio
import dataclasses
import logging
import time

from launcher.engine.background import BackgroundTasks, death_by
from launcher.engine.nodes import FRESH_SECONDS, find_meeting_port
from launcher.engine.start import Joining, Start, adopt_start, find_end, start
from launcher.engine.stop import clear_up, stop
from launcher.host.process import head_lives, vital_processes
from launcher.host.records import Record
from launcher.host.resources import HostResources
from launcher.store_link import StoreView
from modelserver.policy.lifecycle import CannotHeal, Died, Held, Life
from modelserver.policy.placement.rooms import HOLDING
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    ModelSpec,
    NodeReport,
)

_log = logging.getLogger(__name__)

#: What is said of one before it has looked whether it could start.
LOOKING = "it looks for its place"
#: Seconds between two looks for its place, and at its log.
LOOK_SECONDS = 1.0
#: Seconds for which it runs on without news of a leader: that may come again.
ALONE_SECONDS = 15.0
#: Seconds beyond its model's ``drain_seconds`` that its leader has to end, once this
#: launcher is to end.
LEADER_SECONDS = 15.0


class NodeKeeper:
    """One node from 1 on, on this host, from its first wish to its end."""

    def __init__(
        self, spec: EngineSpec, node: int, model: ModelSpec, resources: HostResources
    ) -> None:
        self.spec, self.node, self.model = spec, node, model
        self._resources = resources
        self._log = resources.log_of(spec.id)
        #: What is wanted of it, None where it is wanted no longer.
        self._wish: tuple[EngineSpec, int] | None = (spec, node)
        self._state = EngineState.PENDING
        self._reason = LOOKING
        self._incarnation = 0
        self._start: Start | None = None
        self._background = BackgroundTasks(resources.wake)
        self._next_look = 0.0
        self._alone_since: float | None = None
        self._deadline: float | None = None

    def adopt(self, record: Record) -> None:
        """Go on with what an earlier launcher started, or report that it has ended."""
        self._incarnation = record.incarnation
        self._start = adopt_start(record, self.model, self._resources)
        place, model = self._start.place, self._start.model
        allocation, mark = self._resources.allocation, record.process.mark
        allocation.adopt(self.spec, model, place, record.ready, mark)
        if head_lives(record.process):
            self._move(EngineState.STARTING, "adopted")
        else:
            self._end(EngineState.BACKOFF, "it ended while no launcher watched it")

    def apply_wish(self, wish: EngineSpec | None, node: int = 0) -> None:
        """Go by a wish, None for that it is wanted here no longer."""
        self._wish = None if wish is None else (wish, node)

    def stop(self, at_once: bool = False) -> None:
        """End it for good, once its leader has drained the engine."""
        patience = 0.0 if at_once else self.model.drain_seconds + LEADER_SECONDS
        self._deadline = time.monotonic() + patience

    @property
    def gone(self) -> bool:
        """Whether it has ended for good."""
        busy = self._start is not None or self._background.has_job
        return not busy and (self._wish is None or self._deadline is not None)

    def tick(self, now: float, view: StoreView) -> None:
        """Do what is due now."""
        if error := self._background.collect():
            _log.error("engine=%s", self.spec.id, exc_info=error)
            self._end(EngineState.BACKOFF, death_by(error).reason)
        if self._background.has_job:
            return
        leader = view.engines.get(self.spec.id)
        if self._start is None:
            self._tick_waiting(now, view, leader)
        else:
            self._tick_running(self._start, now, view, leader)

    def _tick_waiting(
        self, now: float, view: StoreView, leader: EngineReport | None
    ) -> None:
        if self._wish is None or self._deadline is not None:
            return
        if self._is_led_by(leader):
            return  # Its leader does not know yet that it has ended, or why it waits.
        self.spec, self.node = self._wish
        if self._state is not EngineState.PENDING:
            self._move(EngineState.PENDING, LOOKING)
        if leader is not None and self._is_called_by(leader, view):
            # Before its process, which may take long: a PENDING one would be gone.
            self._incarnation = leader.incarnation
            self._move(EngineState.STARTING, "")
            self._background.start_job(self._launch(leader))
        elif now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._background.start_job(self._look_for_place())

    def _tick_running(
        self, start: Start, now: float, view: StoreView, leader: EngineReport | None
    ) -> None:
        serves = bool(leader and leader.serves)
        ended = find_end(start, self._log, starting=not serves)
        if ended is not None:
            if isinstance(ended, Died) and ended.cuda:
                uuids, faults = start.place.uuids, self._resources.gpu_faults
                faults.note_death(self.spec.id, uuids, ended.cuda)
            self._end(_state_after(ended), ended.reason)
        elif why := self._find_leave(leader, view, now):
            self._background.drop_question()
            self._background.start_job(self._stop(why))
        elif now >= self._next_look and not self._background.has_question:
            self._next_look = now + LOOK_SECONDS
            self._background.start_question(self._look_at(start, serves))

    def _is_called_by(self, leader: EngineReport, view: StoreView) -> bool:
        """Whether its leader has begun an incarnation that it is to take part in."""
        return (
            leader.host == self.spec.host
            and leader.host in view.hosts
            and leader.state is EngineState.STARTING
            and type(leader.incarnation) is int
            and leader.incarnation != self._incarnation
            and find_meeting_port(leader) > 0
        )

    def _is_led_by(self, leader: EngineReport | None) -> bool:
        """Whether its leader still has the incarnation that it took part in last."""
        return (
            leader is not None
            and leader.host == self.spec.host
            and leader.incarnation == self._incarnation
            and leader.state in HOLDING
        )

    def _find_leave(
        self, leader: EngineReport | None, view: StoreView, now: float
    ) -> str:
        """Why it is to end, "" where it is not."""
        if self._deadline is not None:
            self._move(EngineState.DRAINING, "its launcher ends")
            if now >= self._deadline:
                return self._reason
        if now - view.read_at > FRESH_SECONDS:
            self._alone_since = None
            return ""
        if leader is not None and not self._is_led_by(leader):
            return "its leader has ended"
        silent = leader is None or leader.host not in view.hosts
        if not silent or (leader is not None and self._wish is not None):
            self._alone_since = None
            return ""
        if self._wish is None and self.spec.id in view.elsewhere | view.wishes.keys():
            return "its engine is wanted on other hosts"
        self._alone_since = now if self._alone_since is None else self._alone_since
        return "its leader is gone" * (now - self._alone_since > ALONE_SECONDS)

    # What takes time.

    async def _look_for_place(self) -> None:
        spec, allocation = self.spec.of_node(self.node), self._resources.allocation
        self._reason = await allocation.find_refusal(spec, self.model)

    async def _launch(self, leader: EngineReport) -> None:
        port = find_meeting_port(leader)
        joining = Joining(self.node, leader.incarnation, port)
        begun = await start(self.spec, self.model, self._resources, joining=joining)
        if isinstance(begun, Start):
            self._start, self._alone_since = begun, None
        else:
            self._move(_state_after(begun), begun.reason)

    async def _look_at(self, start: Start, serves: bool) -> None:
        """Read its log while the engine loads, and its processes once it serves."""
        if not serves:
            await asyncio.to_thread(start.progress.look)
            self._reason = start.progress.doing
        elif self._state is EngineState.STARTING and start.process is not None:
            await asyncio.to_thread(start.process.look_inside)
            start.vital = vital_processes(start.process.identity)
            start.record = dataclasses.replace(
                start.record, process=start.process.identity, ready=True
            )
            self._resources.records.update(start.record)
            self._resources.allocation.mark_loaded(self.spec.id)
            self._move(EngineState.READY, "")

    async def _stop(self, why: str) -> None:
        _log.info("engine=%s node=%d stops: %s", self.spec.id, self.node, why)
        if self._start is not None:
            await stop(self._start, Life(), 0, self._resources, lambda: False)
        await self._clear_up()
        self._move(EngineState.PENDING, LOOKING)

    async def _clear_up(self) -> None:
        begun, self._start = self._start, None
        await clear_up(self.spec.id, begun, None, 0, self._resources)

    def _end(self, state: EngineState, reason: str) -> None:
        """Note that it has ended by itself, and end what is left of it."""
        self._background.drop_question()
        self._move(state, reason)
        self._background.start_job(self._clear_up())

    def _move(self, state: EngineState, reason: str) -> None:
        before, self._state, self._reason = self._state, state, reason
        if before is not state:
            _log.info(
                'engine=%s node=%d %s -> %s incarnation=%d reason="%s"',
                *(self.spec.id, self.node, before.value, state.value),
                *(self._incarnation, reason),
            )
            self._resources.wake()

    def report(self) -> NodeReport:
        """What the store is told of it."""
        process = self._start.process if self._start else None
        return NodeReport(
            engine=self.spec.id,
            node=self.node,
            host=self._resources.host,
            state=self._state,
            incarnation=self._incarnation,
            pid=process.identity.pid if process else 0,
            uuids=self.spec.places[self.node].uuids,
            gpus=self._start.place.gpus if self._start else (),
            reason=self._reason,
            log=str(self._log),
        )


def _state_after(end: Died | CannotHeal | Held) -> EngineState:
    """What its leader has to know: whether it only waits, and whether it can heal."""
    if isinstance(end, Held):
        return EngineState.PENDING
    fatal = isinstance(end, CannotHeal)
    return EngineState.FATAL if fatal else EngineState.BACKOFF
