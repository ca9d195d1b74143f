"""One request on one engine: counted in and out, and recorded whatever happens."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from modelserver.engine_protocol import EngineFault, RequestFault
from modelserver.measured import Sample
from modelserver.values import Outcome
from workers.delivery.server_clock import ServerClock
from workers.engines.engine_slot import EngineSlot


class Attempt:
    """A context in which a request runs on an engine; leaves a sample behind.

    ``record`` gets the sample.
    """

    def __init__(
        self, slot: EngineSlot, record: Callable[[Sample], None], clock: ServerClock
    ) -> None:
        self.slot = slot
        self.engine = slot.engine
        #: When it began, by the monotonic clock.
        self.began = time.monotonic()
        self._record = record
        self._clock = clock
        self._inflight = slot.inflight + slot.inflight_of_others
        self._admitted = slot.admitted
        self._tokens = (0, 0)
        #: How a fault of the engine counts.
        self.fault_outcome = Outcome.ENGINE_FAULT
        #: How long its request had waited when it began, None where nobody counts that.
        self.waited_seconds: float | None = None
        #: How long its request took to the first token of its stream, None likewise.
        self.first_token_seconds: float | None = None
        #: Whether the answer's text was cut off.
        self.cut_off = False
        #: Whether its time tells of the engine's model.
        self.is_telling = True

    def __enter__(self) -> Self:
        self._number = self.slot.begin(self.began)
        return self

    def admit(self, prompt: int, completion: int) -> None:
        """Take note of the request's tokens, as the engine counted them."""
        self._tokens = (prompt, completion)
        self.slot.admit(prompt)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        now = time.monotonic()
        outcome = self._outcome(error)
        self.slot.end(
            self._number, now, well=outcome in (Outcome.OK, Outcome.REQUEST_FAULT)
        )
        if not self.is_telling:
            return
        self._record(
            Sample(
                engine=self.engine.id,
                incarnation=self.engine.incarnation,
                ended_at=self._clock.at(now),
                seconds=now - self.began,
                prompt_tokens=self._tokens[0],
                completion_tokens=self._tokens[1],
                inflight_start=self._inflight,
                inflight_end=self.slot.inflight + self.slot.inflight_of_others,
                prompt_admitted=self.slot.admitted - self._admitted,
                outcome=outcome,
                cut_off=self.cut_off,
                waited_seconds=self.waited_seconds,
                first_token_seconds=self.first_token_seconds,
            )
        )

    def _outcome(self, error: BaseException | None) -> Outcome:
        if error is None:
            return Outcome.OK
        if isinstance(error, RequestFault):
            return Outcome.REQUEST_FAULT
        if isinstance(error, EngineFault):
            return self.fault_outcome
        return Outcome.CANCELLED
