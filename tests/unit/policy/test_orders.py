"""Operators' orders in the decisions of control."""

from dataclasses import replace

from modelserver.inventory import Host
from modelserver.policy.actions import Alert, Relaunch, Treat, Want
from modelserver.policy.decide import apply, consider, decide
from modelserver.policy.health.memory import EngineMemory, Health, HealthMemory
from modelserver.policy.orders import (
    DRAIN,
    DRAIN_HOST,
    PAUSE,
    Orders,
    in_force,
    orders_about,
)
from modelserver.policy.replay import RulesOf
from modelserver.policy.snapshot import Snapshot
from modelserver.values import (
    Cause,
    EngineReport,
    EngineSpec,
    EngineState,
    Kind,
    ModelSpec,
    Order,
    Wish,
)

NOW = 1000.0
MODEL = ModelSpec("m", Kind.COMPLETION, "/m", "sglang-cpu")
DRAINED = Order(DRAIN, "m-0", who="ada", reason="new driver")


RULES = RulesOf(hang_seconds=60.0, relaunch_pause_seconds=10.0)


def look(*orders: Order, hold: str = "", silent_seconds: float = 0.0) -> Snapshot:
    """One ready engine where it is wanted."""
    at = NOW - silent_seconds
    engine = EngineReport(
        "m-0", "m", "a", EngineState.READY, 3, limit=64, since=at, alive_at=at
    )
    drained = hold.startswith("drained")
    place = EngineSpec("m-0", "m", "a")
    wish = Wish(place, hold=hold, drained=drained, limit=16, canary=2)
    return Snapshot(
        specs=(MODEL,),
        pins=(),
        hosts=(Host("a"),),
        engines={"m-0": engine},
        wishes={"m-0": wish},
        loads={},
        orders=orders,
    )


def test_a_drained_engine_is_held_with_the_operators_reason():
    snapshot = look(DRAINED)
    (action,) = decide(snapshot, RULES, NOW)
    assert isinstance(action, Treat)
    assert (action.incarnation, action.hold) == (3, "drained by ada: new driver")
    wish = apply([action], snapshot.wishes, 7)["m-0"]
    assert wish
    assert (wish.hold, wish.limit, wish.canary) == (action.hold, 16, 2)


def test_a_hold_that_stands_is_not_written_again():
    assert decide(look(DRAINED, hold="drained by ada: new driver"), RULES, NOW) == ()


def test_an_engine_that_is_no_longer_drained_serves_again():
    (action,) = decide(look(hold="drained by ada: new driver"), RULES, NOW)
    assert isinstance(action, Treat)
    assert (action.hold, action.limit) == ("", 16)


def test_an_order_never_ends_a_hold_of_control():
    assert decide(look(hold="draining: slow"), RULES, NOW) == ()


def test_control_does_not_end_a_hold_of_an_operator():
    snapshot = look(DRAINED, hold="drained by ada: new driver")
    memory = HealthMemory(engines={"m-0": EngineMemory(3, "a", Health.HEALTHY)})
    assert decide(replace(snapshot, memory=memory), RULES, NOW) == ()


def test_a_drained_engine_that_hangs_is_left_to_the_operator():
    held = "drained by ada: new driver"
    assert decide(look(DRAINED, hold=held, silent_seconds=90), RULES, NOW) == ()
    (action,) = decide(look(silent_seconds=90), RULES, NOW)
    assert isinstance(action, Relaunch)


def test_nothing_is_done_about_what_is_paused():
    for target in ("m", "m-0"):
        order = Order(PAUSE, target, who="ada")
        hung = look(order, silent_seconds=90)
        assert decide(hung, RULES, NOW) == ()
        stale = replace(hung.engines["m-0"], stale="path changed", alive_at=NOW)
        assert decide(replace(hung, engines={"m-0": stale}), RULES, NOW) == ()


def test_a_paused_model_gets_no_engine():
    empty = replace(look(), engines={}, wishes={})
    assert decide(empty, RULES, NOW) == (Want(EngineSpec("m-0", "m", "a")),)
    paused = replace(empty, orders=(Order(PAUSE, "m"),))
    assert decide(paused, RULES, NOW) == ()


def test_a_pause_ends_at_its_time():
    order = Order(PAUSE, "m", until=NOW + 1)
    hung = look(order, silent_seconds=90)
    assert decide(hung, RULES, NOW) == ()
    assert in_force(hung.orders, NOW + 1) == ()
    (action,) = decide(hung, RULES, NOW + 1)
    assert isinstance(action, Relaunch)


def test_what_is_paused_may_still_be_told():
    paused = Orders(look(Order(PAUSE, "m")), NOW)
    assert not paused.pauses(Alert("m", "its engines are slow"))
    assert paused.pauses(Relaunch("m-0", 3, "hung", Cause.HUNG))


def test_orders_about_an_engine_and_its_model_come_drains_first():
    orders = [Order(PAUSE, "m"), DRAINED, Order(PAUSE, "n")]
    assert orders_about(orders, "m-0", "m") == (DRAINED, Order(PAUSE, "m"))


def hosts_of(snapshot: Snapshot, *names: str) -> Snapshot:
    """The same with these hosts, the first of which an operator drains."""
    order = Order(DRAIN_HOST, names[0], who="ada", reason="new disk")
    hosts = tuple(Host(name) for name in names)
    return replace(snapshot, hosts=hosts, orders=(order,))


def test_the_engines_of_a_drained_host_go_to_another():
    (action,) = decide(hosts_of(look(), "a", "b"), RULES, NOW)
    assert isinstance(action, Want)
    assert action.spec.host == "b"


def test_what_fits_nowhere_else_is_held_until_the_host_is_open_again():
    snapshot = hosts_of(look(), "a")
    (action,) = decide(snapshot, RULES, NOW)
    assert isinstance(action, Treat)
    assert action.hold == "host a is drained by ada: new disk"
    wish = apply([action], snapshot.wishes, 7)["m-0"]
    assert wish
    held = replace(snapshot, wishes={"m-0": wish})
    assert decide(held, RULES, NOW) == ()
    assert consider(held, RULES, NOW).waiting == {
        "m-0": "host a is drained by ada: new disk; only drained hosts could have it "
        "now: a; modelserver undrain-host opens one again"
    }
    (freed,) = decide(replace(held, orders=()), RULES, NOW)
    assert isinstance(freed, Treat)
    assert freed.hold == ""


def test_control_does_not_end_the_hold_of_what_fits_nowhere_else():
    """Nor judges it: it was held and released in turn, at every look."""
    held = hosts_of(look(hold="drained"), "a")
    wish = replace(held.wishes["m-0"], hold="host a is drained by ada: new disk")
    memory = HealthMemory(engines={"m-0": EngineMemory(3, "a", Health.HEALTHY)})
    snapshot = replace(held, wishes={"m-0": wish}, memory=memory)
    assert decide(snapshot, RULES, NOW) == ()
    silent = replace(snapshot.engines["m-0"], since=NOW - 90, alive_at=NOW - 90)
    assert decide(replace(snapshot, engines={"m-0": silent}), RULES, NOW) == ()


def test_a_pinned_engine_of_a_drained_host_is_held():
    snapshot = hosts_of(look(), "a", "b")
    pinned = replace(snapshot, pins=(EngineSpec("m-0", "m", "a"),))
    (action,) = decide(pinned, RULES, NOW)
    assert isinstance(action, Treat)
