"""A worker whose answer is refused leaves all else to the one that has the request."""

import time

from modelserver.store.batch import Stored, StoreResult
from modelserver.store.messages.reaps import reap
from tests.model.ground import KEYS, Ground, message
from tests.support.processes import ValkeyProcess
from workers.delivery.courier import Courier


def test_a_refused_answer_leaves_the_deadline_in_place(valkey: ValkeyProcess):
    ground = Ground(valkey.url)
    frozen, other = ground.start_worker("frozen"), ground.start_worker("other")
    ground.put("m", message("r1", "a", deadline=time.time() + 3600))
    courier = Courier(frozen.deliveries)

    async def answer_late() -> Stored:
        (delivery,) = await frozen.deliveries.pull("m", 1)
        courier.took("m", delivery)
        courier.held[delivery.tag].deadline_of = "r1"
        ground.end_lease(frozen)
        await reap(other.deliveries)
        value = '{"status": "SUCCESS"}'
        late = StoreResult(delivery.tag, KEYS.result("r1"), value, 60, final=True)
        stored = courier.store(late)
        await courier.flush()
        courier.ack(delivery.tag)
        await courier.flush()
        return await stored

    assert ground.wait(answer_late()) is Stored.FENCED
    state = ground.state()
    assert "r1" in state.pairs(KEYS.deadlines)
    assert courier.active["m"] == 0
    ground.close()
