"""What is asked of one engine while it serves, and where the answers go."""

import asyncio
import dataclasses
import time
from collections.abc import Sequence

from launcher.engine.canaries import Canaries, CanaryPlan, EngineUse, SentCanary
from launcher.engine.liveness import Liveness
from launcher.engine.readiness import may_be_unseen
from launcher.engine.start import Start
from launcher.host.listeners import PortWatch
from launcher.host.resources import HostResources
from launcher.store_link import StoreView
from modelserver.measured import Canary, Metrics
from modelserver.values import ModelSpec, Wish

#: Seconds between two looks at who listens on its port.
PORT_LOOK_SECONDS = 0.2


class Checkup:
    """Proofs of life, metrics, canaries and the port of one incarnation.

    ``first`` are the canaries that it had before it served; ``measured`` says that it
    needs no more for a baseline; ``rounds`` is the last round of canaries that is over.
    """

    def __init__(
        self,
        start: Start,
        model: ModelSpec,
        resources: HostResources,
        first: Sequence[SentCanary],
        measured: bool,
        rounds: int,
    ) -> None:
        now = time.monotonic()
        self._start, self._resources = start, resources
        self._engine = start.record.spec.id
        self._unreported = list(first)
        #: The metrics that the store has; at first unlike any, so that old ones go.
        self._sent: Metrics | None = Metrics()
        plan = CanaryPlan(rounds, measured, now)
        self.liveness = Liveness(resources.session, start.url, model, now)
        self._canaries = Canaries(
            resources.session, start.url, model, plan, self._unreported.extend
        )
        #: Who else listens on its port, "" for nobody.
        self.stranger = ""
        self._port_watch: PortWatch | None = None
        self._port_look: asyncio.Task[None] | None = None
        if start.process is not None:
            hidden, identity = may_be_unseen(start), start.process.identity
            self._port_watch = PortWatch(
                resources.listeners, start.record.port, identity, hidden
            )
        self._next_port_look = now

    @property
    def rounds(self) -> int:
        """The last round of canaries that is over."""
        return self._canaries.plan.done

    def tick(self, now: float, view: StoreView, wish: Wish) -> None:
        """Do what is due; never waits."""
        load = view.loads.get(self._engine)
        self.liveness.tick(now, load, view.read_at)
        self._look_at_port(now)
        self._queue_metrics(view)
        if not view.known:
            return
        use = EngineUse.of(load, view.read_at, self.liveness.busy_at(now))
        self._canaries.tick(now, use, wish)
        self._queue_canaries(view)

    def stop(self) -> None:
        """Ask nothing more, and take its metrics out of the store."""
        self.stop_asking()
        if self._sent is not None:
            self._resources.link.queue_metrics(self._engine, None)

    def _look_at_port(self, now: float) -> None:
        look = self._port_look
        if look is not None and look.done():
            self._port_look = None
            look.result()
        if self._port_watch and not self._port_look and now >= self._next_port_look:
            self._next_port_look = now + PORT_LOOK_SECONDS
            looking = self._find_stranger(self._port_watch)
            self._port_look = asyncio.create_task(looking)

    async def _find_stranger(self, watch: PortWatch) -> None:
        self.stranger = await asyncio.to_thread(watch.find_stranger)
        if self.stranger:
            self._resources.wake()  # Each prompt may go to it.

    def stop_asking(self) -> None:
        """Ask nothing more."""
        self.liveness.stop()
        self._canaries.stop()

    def _queue_metrics(self, view: StoreView) -> None:
        metrics = self.liveness.metrics
        if metrics is not None and metrics.tokens_at:
            tokens_at = round(view.store_time(metrics.tokens_at), 1)
            metrics = dataclasses.replace(metrics, tokens_at=tokens_at)
        if metrics != self._sent:
            self._sent = metrics
            self._resources.link.queue_metrics(self._engine, metrics)

    def _queue_canaries(self, view: StoreView) -> None:
        incarnation = self._start.record.incarnation
        for sent in self._unreported:
            at = view.store_time(sent.began)
            canary = Canary(
                *(self._engine, incarnation, at, sent.seconds),
                loaded=sent.loaded,
                round=sent.round,
            )
            self._resources.link.queue_canary(canary)
        self._unreported.clear()
        if self.rounds != self._start.record.canary:
            record = dataclasses.replace(self._start.record, canary=self.rounds)
            self._start.record = record
            self._resources.records.update(record)
