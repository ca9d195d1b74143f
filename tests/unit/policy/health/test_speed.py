"""How fast an engine is by its requests, and whether it is slow."""

import math
from dataclasses import replace

import pytest

from modelserver.policy.health.speed import (
    compare_with_peers,
    find_slow,
    find_slow_together,
    speed_of,
    track_of,
)
from modelserver.policy.health.verdicts import SpeedResidual
from modelserver.values import EngineReport, EngineState, Outcome
from tests.support.control import FIT, NOW, sample, samples

ENGINE = EngineReport("m-0", "m", "a", EngineState.READY, 1)
WELL = SpeedResidual(0.0, 0.01, 40)
LN2 = math.log(2)


def speed(made, offset: float = 0.0) -> SpeedResidual | None:
    return speed_of(track_of(made, FIT, offset, 32, NOW), FIT.sigma, NOW)


def slow(own: SpeedResidual | None, *peers: SpeedResidual):
    speeds = {f"m-{place}": peer for place, peer in enumerate(peers, 1)}
    if own:
        speeds["m-0"] = own
    return find_slow(ENGINE, speeds, list(speeds))


# Speed


def test_an_engines_speed_is_the_median_of_its_last_forty_requests():
    made = (*samples(number=40, seconds=2.0), *samples(number=20, seconds=9.0))
    found = speed(made)
    assert found
    assert found.residual == pytest.approx(LN2)
    assert found.requests == 40
    assert found.error == pytest.approx(1.2533 * 0.05 / math.sqrt(40))


def test_its_own_level_is_taken_off():
    found = speed(samples(seconds=2.0), offset=LN2)
    assert found
    assert found.residual == pytest.approx(0.0)


def test_with_few_of_late_twelve_of_ten_minutes_count():
    made = [sample(age=50.0 * place, seconds=2.0) for place in range(13)]
    found = speed(made)
    assert found
    assert found.requests == 12


def test_seven_requests_say_nothing():
    assert speed(samples(number=7)) is None
    assert speed([sample(age=601.0)] * 20) is None


def test_failed_requests_have_no_speed():
    assert speed(samples(outcome=Outcome.ENGINE_FAULT)) is None


def test_scatter_beyond_the_fits_makes_less_certain():
    made = [sample(seconds=1.0 + place % 3) for place in range(40)]
    found = speed(made)
    assert found
    assert found.error > 1.2533 * 0.05 / math.sqrt(40)


# Slow


def test_an_engine_slower_than_its_peers_is_slow_and_says_why():
    verdict = slow(SpeedResidual(LN2, 0.02, 40), WELL, WELL)
    assert verdict
    assert verdict.text == (
        "slow: takes 2.00x of what its requests explain (its 2 peers 1.00x; "
        "40 requests, standard error 2 %)"
    )


@pytest.mark.parametrize(
    ("own", "peers"),
    [
        (SpeedResidual(math.log(1.39), 0.001, 40), 0.0),  # not enough beyond its peers
        (SpeedResidual(math.log(1.24), 0.001, 40), -0.5),  # hardly slow at all
        (SpeedResidual(LN2, 0.2, 8), 0.0),  # not certain
        (SpeedResidual(LN2, 0.02, 40), LN2),  # no slower than they are
    ],
)
def test_it_takes_all_three_to_be_slow(own: SpeedResidual, peers: float):
    assert (
        slow(own, SpeedResidual(peers, 0.01, 40), SpeedResidual(peers, 0.01, 40))
        is None
    )


def test_alone_it_has_to_be_slower_and_says_so():
    assert slow(SpeedResidual(math.log(1.79), 0.01, 40)) is None
    assert slow(SpeedResidual(LN2, 0.2, 40)) is None
    verdict = slow(SpeedResidual(LN2, 0.02, 40))
    assert verdict
    assert "(no peers;" in verdict.text
    beyond = replace(verdict, accepted=LN2)
    assert beyond.text.startswith(
        "slow: takes 2.00x of what its requests explain beyond 2.00x (no peers;"
    )


def test_an_engine_of_unknown_speed_is_not_slow():
    assert slow(None, WELL) is None


def test_suspected_engines_are_no_peers():
    speeds = {"m-0": SpeedResidual(LN2, 0.02, 40), "m-1": WELL}
    verdict = find_slow(ENGINE, speeds, ["m-0"])
    assert verdict
    assert verdict.peers == 0


# The same time


def spaced(times: float = 1.0, since: float = 0.0, gap: float = 20.0):
    """A request every 20 seconds; those of the last ``since`` seconds take longer."""
    return track_of(
        [
            sample(age=gap * place, seconds=times if gap * place < since else 1.0)
            for place in range(30)
        ],
        FIT,
        0.0,
        32,
        NOW,
    )


def compared(own, *peers):
    tracks = {f"m-{place}": track for place, track in enumerate((own, *peers))}
    speeds = {
        name: found
        for name, track in tracks.items()
        if (found := speed_of(track, 0.05, NOW))
    }
    return compare_with_peers("m-0", speeds, list(tracks), tracks)


def test_few_requests_are_compared_with_what_peers_did_at_that_time():
    slow = spaced(3.0, since=200.0)
    by = compared(slow, slow, slow)
    assert by
    assert (by.excess, by.peers) == (0.0, 2)
    assert by.level == pytest.approx(math.log(3))
    alone = compared(slow, spaced(), spaced())
    assert alone
    assert alone.excess == pytest.approx(math.log(3))


def test_older_requests_are_not_compared_with_a_peers_last_minute():
    slow, busy = spaced(3.0, since=200.0), spaced(3.0, since=200.0, gap=1.0)
    assert compared(slow, busy) is None
    assert find_slow(ENGINE, {"m-0": speed_of(slow, 0.05, NOW)}, ["m-0", "m-1"]) is None


def test_a_lone_engine_needs_no_peers_nor_does_a_busy_one_among_idle_ones():
    by = compared(spaced(3.0, since=200.0))
    assert by
    assert by.peers == 0
    busy = compared(spaced(3.0, since=200.0, gap=1.0), ())
    assert busy
    assert busy.excess == pytest.approx(math.log(3))


# Slow together


def test_all_slow_together_are_not_to_blame():
    verdict = find_slow_together("m", [SpeedResidual(LN2, 0.1, 40)] * 3)
    assert verdict
    assert verdict.text == (
        "3 engines of m together take 2.00x of what their requests explain: "
        "it is the load or the hosts, so none is relaunched"
    )


@pytest.mark.parametrize(
    "residuals", [[LN2], [LN2, 0.0], [LN2, LN2, 0.0, 0.0], [0.3, 0.3, 0.3]]
)
def test_it_takes_most_of_them_to_be_slow_together(residuals):
    assert (
        find_slow_together("m", [SpeedResidual(each, 0.1, 40) for each in residuals])
        is None
    )


# Wander


def slow_with_wander(times: float, wander: float):
    speeds = {"m-0": SpeedResidual(math.log(times), 0.01, 40), "m-1": WELL}
    return find_slow(ENGINE, speeds, list(speeds), wander)


def test_what_engines_do_by_themselves_is_no_fault():
    assert slow_with_wander(1.5, wander=0.03)
    assert slow_with_wander(1.5, wander=0.1) is None
    verdict = slow_with_wander(1.6, wander=0.1)
    assert verdict
    assert "engines here waver by 10 %" in verdict.text


def test_more_than_twice_as_slow_is_slow_however_they_wander():
    assert slow_with_wander(2.25, wander=0.5)
    assert slow_with_wander(2.15, wander=0.5) is None


def test_wandering_excuses_an_engine_without_peers_too():
    speeds = {"m-0": SpeedResidual(math.log(1.9), 0.01, 40)}
    assert find_slow(ENGINE, speeds, ["m-0"], 0.05)
    assert find_slow(ENGINE, speeds, ["m-0"], 0.2) is None
