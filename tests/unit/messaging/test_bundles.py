"""Bundles on the wire, and answers to rows."""

import orjson
import pytest

from modelserver.messaging.bundles import (
    BundleHead,
    BundleRow,
    WaitingBundle,
    read_answer,
    read_bundle,
    write_answer,
    write_bundle,
    write_error,
)
from modelserver.messaging.wire import COMPLETE, Vector
from modelserver.store.batch import CRASHES, DEADLINE, LEFT_BY, REAPS, Delivery
from workers.requests.open_bundle import by_suspicion

HEAD = BundleHead("r", 2, COMPLETE, {"model": "m"}, "team:r", 6, {DEADLINE: 9.0})


def waiting(*rows: BundleRow) -> WaitingBundle:
    raw = write_bundle(HEAD, [orjson.dumps(row.values()) for row in rows])
    found = read_bundle(raw)
    assert found
    return found


def test_a_bundle_comes_as_it_went():
    rows = [BundleRow(0, 'a "b"\n中'), BundleRow(7, ["x"], {"n": 2}, {CRASHES: 1})]
    bundle = waiting(*rows)
    assert bundle.rows == rows
    assert bundle.run == ("r", 2)
    assert bundle.body[1]["parameters"] == {"model": "m"}
    assert bundle.message["properties"]["priority"] == 6
    assert (bundle.is_overdue(8.0), bundle.is_overdue(10.0)) == (False, True)


def test_rows_that_are_for_others_say_so_where_scripts_read_it():
    left = "7.00|w1|"
    rows = [BundleRow(n, "a", None, {LEFT_BY: left} if n else {}) for n in range(3)]
    bundle = waiting(*rows)
    assert [
        raw.partition(b'"run"')[0].partition(b'"body"')[0]
        for raw in by_suspicion(bundle, bundle.rows)
    ] == [b'{"rows":1,', b'{"rows":2,"left_by":"7.00|w1|",']
    (again,) = by_suspicion(bundle, [BundleRow(1, "a")])
    assert b"left_by" not in again


def test_a_bundle_of_some_of_its_rows_says_so_first():
    bundle = waiting(BundleRow(0, "a"), BundleRow(1, "b"), BundleRow(2, "c"))
    raw = bundle.with_rows([BundleRow(2, "c", None, {CRASHES: 1})], **{REAPS: 2})
    again = read_bundle(raw)
    assert again
    assert again.rows == [BundleRow(2, "c", None, {CRASHES: 1})]
    assert again.message["headers"][REAPS] == 2
    assert again.message["headers"]["id"] != bundle.message["headers"]["id"]
    assert again.message["properties"]["delivery_info"]["redelivered"] is True
    assert [Delivery("t", "m", each).rows for each in (raw, b"{}")] == [1, 1]
    assert Delivery("t", "m", bundle.with_rows(bundle.rows)).rows == 3


def test_another_message_is_no_bundle():
    assert read_bundle(b'{"body": "[[], {}, {}]"}') is None


@pytest.mark.parametrize("value", ["", "中\n", ["a", "b"], {"choices": []}, None, 1.5])
def test_an_answer_comes_as_it_went(value: object):
    assert read_answer(write_answer(value)) == (value, None)


def test_vectors_come_as_floats():
    stored = write_answer([Vector.of([0.5, -2.0]), Vector.of([1.0, 0.0])])
    assert read_answer(stored) == ([[0.5, -2.0], [1.0, 0.0]], None)


def test_an_error_comes_as_it_went_but_for_what_is_no_text():
    assert read_answer(write_error("E", "why \ud800")) == (None, ("E", "why ?"))
