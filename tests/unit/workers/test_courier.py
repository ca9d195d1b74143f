"""What a worker notes about the messages in its hands; the rest needs a server."""

import redis.asyncio

from modelserver.store import Deliveries, Keys
from modelserver.store.batch import Batch, Delivery
from modelserver.store.delivery import mark_redelivered
from workers.courier import Courier

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
