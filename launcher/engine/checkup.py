"""Everything that is asked of one engine while it serves, and where the answers go."""

import dataclasses
import time
from collections.abc import Sequence

from launcher.engine.canaries import Canaries, CanaryPlan, EngineUse, Taken
from launcher.engine.liveness import Pulse
from launcher.engine.start import Start
from launcher.host.tools import Tools
from launcher.store_link import World
from modelserver.values import Canary, Metrics, ModelSpec, Wish


class Checkup:
    """Proofs of life, metrics and canaries of one incarnation.

    ``first`` are the canaries that it had before it served, ``measured`` says that it
    needs no more for a baseline. ``rounds`` is the last round of canaries that the
    engine was through.
    """

    def __init__(
        self,
        start: Start,
        model: ModelSpec,
        tools: Tools,
        first: Sequence[Taken],
        measured: bool,
        rounds: int,
    ) -> None:
        now = time.monotonic()
        self._start, self._tools = start, tools
        self._engine = start.record.spec.id
        self._taken = list(first)
        #: What was told of its metrics; nothing yet, so that old ones are taken back.
        self._told: Metrics | None = Metrics()
        plan = CanaryPlan(rounds, measured, now)
        self.pulse = Pulse(tools.session, start.url, model, now)
        self._canaries = Canaries(
            tools.session, start.url, model, plan, self._taken.extend
        )

    @property
    def rounds(self) -> int:
        """The last round of canaries that is over."""
        return self._canaries.plan.done

    def tick(self, now: float, world: World, wish: Wish) -> None:
        """Do what is due; never waits."""
        load = world.loads.get(self._engine)
        self.pulse.tick(now, load, world.read_at)
        self._tell_metrics(world)
        if not world.known:
            return
        sight = EngineUse.of(load, world.read_at, self.pulse.busy_at(now))
        self._canaries.tick(now, sight, wish)
        self._tell_canaries(world)

    def stop(self) -> None:
        """Ask nothing more; what it said of itself holds no longer."""
        self.forsake()
        if self._told is not None:
            self._tools.link.tell_metrics(self._engine, None)

    def forsake(self) -> None:
        """Ask nothing more."""
        self.pulse.stop()
        self._canaries.stop()

    def _tell_metrics(self, world: World) -> None:
        metrics = self.pulse.metrics
        if metrics is not None and metrics.tokens_at:
            tokens_at = round(world.store_time(metrics.tokens_at), 1)
            metrics = dataclasses.replace(metrics, tokens_at=tokens_at)
        if metrics != self._told:
            self._told = metrics
            self._tools.link.tell_metrics(self._engine, metrics)

    def _tell_canaries(self, world: World) -> None:
        incarnation = self._start.record.incarnation
        for taken in self._taken:
            at = world.store_time(taken.began)
            canary = Canary(
                *(self._engine, incarnation, at, taken.seconds),
                loaded=taken.loaded,
                round=taken.round,
            )
            self._tools.link.tell_canary(canary)
        self._taken.clear()
        if self.rounds != self._start.record.canary:
            record = dataclasses.replace(self._start.record, canary=self.rounds)
            self._start.record = record
            self._tools.records.write(record)
