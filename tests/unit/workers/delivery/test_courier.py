"""What a worker notes about the messages in its hands; the rest needs a server."""

import asyncio

import redis.asyncio

from modelserver.store import Keys
from modelserver.store.batch import Batch, Delivery
from modelserver.store.messages.delivery import Deliveries, mark_redelivered
from workers.delivery.courier import MOST_ASIDE, MOST_ASIDE_BYTES, Courier

QUEUE = "writer"


def courier(*tags: str) -> Courier:
    """A courier that holds these messages. Nothing connects: no batch is carried."""
    client = redis.asyncio.Redis()
    courier = Courier(Deliveries(client, Keys("ms:"), "me"))
    for tag in tags:
        courier.took(QUEUE, Delivery(tag, f"ms:{QUEUE}", b"{}"))
    return courier


def test_what_is_settled_makes_room_and_stays_known_until_the_server_has_it():
    one = courier("1", "2", "3", "4")
    freed: list[int] = []
    one.on_freed = lambda: freed.append(one.active[QUEUE])
    one.ack("1")
    one.give_back("2")
    one.park("3", due=5.0)
    assert one.active[QUEUE] == 1
    assert freed == [3, 2, 1]
    assert set(one.held) == {"4"}
    assert one.knows() == {"1", "2", "3", "4"}


def test_a_message_is_settled_once():
    one = courier("1")
    one.give_back("1")
    one.ack("1")
    one.give_back("1")
    one.park("1", due=5.0)
    assert one.active[QUEUE] == 0


def test_what_others_took_over_is_forgotten_without_a_word():
    one = courier("1", "2")
    one.lost("1")
    one.ack("1")
    assert one.knows() == {"2"}
    assert one.active[QUEUE] == 1


def test_a_batch_is_true_if_there_is_anything_to_carry():
    assert not Batch()
    assert Batch(acks=["1"])


def test_a_message_of_a_dead_worker_says_that_it_comes_again():
    message = b'{"body": "b", "headers": {"id": "7"}, "properties": {}}'
    once = mark_redelivered(message)
    assert b'"redelivered":true' in once
    assert mark_redelivered(once) == once


def test_what_is_no_message_is_not_marked():
    for rubbish in (b"no JSON", b"[]", b"7", b'{"headers": {}}'):
        assert mark_redelivered(rubbish) == rubbish


def test_what_waits_takes_no_room_until_its_turn_comes():
    one = courier("1", "2")
    freed: list[int] = []
    one.on_freed = lambda: freed.append(one.active[QUEUE])
    one.set_aside("1", True)
    one.set_aside("1", True)
    assert (one.active[QUEUE], freed) == (1, [1])
    one.set_aside("1", False)
    assert one.active[QUEUE] == 2
    one.set_aside("1", True)
    one.give_back("1")
    assert (one.active[QUEUE], one.aside, one.aside_bytes) == (1, 0, 0)


def test_more_than_a_bound_take_room_while_they_wait():
    tags = [str(number) for number in range(MOST_ASIDE + 10)]
    one = courier(*tags)
    for tag in tags:
        one.set_aside(tag, True)
    assert one.active[QUEUE] == 10
    big = courier()
    for tag in ("1", "2"):
        raw = bytes(MOST_ASIDE_BYTES // 2 + 1)
        big.took(QUEUE, Delivery(tag, f"ms:{QUEUE}", raw))
        big.set_aside(tag, True)
    assert big.active[QUEUE] == 1


def test_who_passes_a_message_on_stands_back_for_a_moment():
    async def passes_on() -> tuple[bool, bool]:
        message = b'{"body": "b", "headers": {}, "properties": {}}'
        one = courier()
        for tag in ("1", "2"):
            one.took(QUEUE, Delivery(tag, f"ms:{QUEUE}", message))
        one.give_back("1")
        before = one.stands_back(QUEUE)
        one.pass_on("2")
        one.give_back("2")
        return before, one.stands_back(QUEUE)

    assert asyncio.run(passes_on()) == (False, True)


# Rows of bundles.


def with_bundle() -> Courier:
    """A courier that holds a bundle of three rows, all under way."""
    one = courier("1")
    one.took(QUEUE, Delivery("2", f"ms:{QUEUE}", b'{"rows":3,"body":""}'))
    assert one.active[QUEUE] == 4
    one.hold_rows("2", ["2/0", "2/1", "2/2"], lambda: b'{"rows":1}')
    return one


def test_each_row_takes_room_until_it_is_answered():
    one = with_bundle()
    assert one.active[QUEUE] == 4
    one.answered("2/0")
    one.let_row_go("2/0")
    assert one.active[QUEUE] == 3
    one.set_aside("2/1", aside=True)
    assert one.active[QUEUE] == 2
    one.let_row_go("2/1")
    one.let_row_go("2/1")
    assert one.active[QUEUE] == 2
    one.let_row_go("2/2")
    one.ack("2")
    assert one.active[QUEUE] == 1
    assert one.knows() == {"1", "2"}


def test_what_a_row_was_tried_on_is_known_when_it_goes():
    one = with_bundle()
    one.amend("2/1", {"crashes": 1})
    assert one.let_row_go("2/1") == {"crashes": 1}
    assert one.let_row_go("2/0") == {}


def test_a_bundle_that_goes_back_is_made_anew():
    one = with_bundle()
    held = one.held["2"]
    assert held.raw() == b'{"rows":1}'
    assert one.held["1"].raw() == b"{}"


def test_a_bundle_that_goes_back_unopened_frees_all_its_room():
    one = courier()
    one.took(QUEUE, Delivery("2", f"ms:{QUEUE}", b'{"rows":3,"body":""}'))
    one.give_back("2")
    assert one.active[QUEUE] == 0
