"""How requests get into the tallies, and which of them are late."""

from dataclasses import replace

import pytest

from modelserver.measured import Canary, Sample
from modelserver.policy.health.cost_model import Fit
from modelserver.policy.health.counting import late_from, with_tallies
from modelserver.policy.health.memory import EngineMemory, Health, TypeMemory
from modelserver.policy.health.observation import Observation
from modelserver.policy.health.tallies import Tallies
from modelserver.values import Outcome
from tests.support.control import FIT, NOW, Scene, canaries, known, sample

KIND = TypeMemory(fit=FIT, frozen=True)


def count(
    samples: list[Sample],
    own: EngineMemory | None = None,
    kind: TypeMemory = KIND,
    given: tuple[Canary, ...] = (),
) -> Tallies:
    """What is counted of these at one look, ten seconds after the one before."""
    scene = Scene(engines=1)
    report, memory = scene.engines["m-0"], own or known()
    seen = Observation(report, scene.spec, "a", "", samples, given)
    counted = with_tallies({"m-0": seen}, {"m-0": memory}, {"m@": kind}, 10.0, NOW)
    return counted["m-0"].tallies


def late(tallies: Tallies) -> float:
    return sum(cell[4] for cell in tallies.cells)


def weight(tallies: Tallies) -> float:
    return sum(cell[1] for cell in tallies.cells)


def test_a_request_that_met_a_silence_is_late():
    tallies = count([sample(age=1, seconds=7.0), sample(age=8)])
    assert (late(tallies), tallies.pauses, tallies.lost) == (1, 1.0, 6.0)


def test_one_that_took_long_while_others_were_answered_is_not():
    others = [sample(age=place) for place in range(2, 9)]
    assert not late(count([sample(age=1, seconds=7.0), *others]))


def test_one_that_is_late_by_a_second_is_not():
    assert not late(count([sample(age=1, seconds=2.5), sample(age=8)]))


def test_on_a_full_engine_a_silence_is_long_for_its_answers():
    def full(age: float, seconds: float = 1.0) -> Sample:
        return replace(
            sample(age=age, seconds=seconds), inflight_start=9, inflight_end=9
        )

    rare = [full(1, 7.0), *(full(8 + 4 * place) for place in range(9))]
    often = [full(1, 7.0), *(full(8 + place) for place in range(9))]
    assert not late(count(rare))
    assert late(count(often)) == 1


def test_a_backlog_of_long_prompts_makes_nobody_late():
    reads = Fit((0.0, 0.0001, 0.01, 0.0, 0.0001), 0.05, 1000)
    kind = replace(KIND, fit=reads)

    def long(age: float, seconds: float, prompts: int) -> Sample:
        each = sample(age=age, seconds=seconds)
        return replace(each, prompt_tokens=prompts, prompt_admitted=prompts)

    made = [long(1, 7.0, 8000), long(8, 3.0, 8000)]
    assert not late(count(made, kind=kind))
    made = [long(1, 7.0, 80), long(8, 1.0, 80)]
    assert late(count(made, kind=kind)) == 1


def test_prompts_that_had_been_read_before_are_no_backlog():
    """Those of answers that took longer than they had since are read by then."""
    reads = Fit((0.0, 0.0001, 0.01, 0.0, 0.0001), 0.05, 1000)
    kind = replace(KIND, fit=reads)

    def met(other: Sample) -> Tallies:
        """A pause of three seconds, and one that was in flight when it began."""
        late = replace(sample(age=1, seconds=4.0), inflight_start=1)
        return count([late, other], kind=kind)

    # A hundred tokens take a second at least: it was read one second before its end.
    long = replace(sample(age=4.2, seconds=6.0), prompt_tokens=8000)
    assert met(replace(long, completion_tokens=50)).pauses == 0
    assert met(long).pauses == 1
    # Nobody knows of one that has no answer yet.
    assert met(replace(long, ended_at=NOW - 5.5)).pauses == 0


def test_prompts_longer_than_the_fit_is_good_for_slow_nobody():
    reads = Fit((0.0, 0.0001, 0.01, 0.0, 0.0), 0.05, 1000)
    kind = replace(KIND, fit=reads)
    long = replace(sample(seconds=4.0), prompt_tokens=10_000, prompt_admitted=10_000)
    short = replace(sample(seconds=4.0), prompt_admitted=10_000)
    (cell,) = count([long], kind=kind).cells
    assert cell[2] == 0.0
    (cell,) = count([short], kind=kind).cells
    assert cell[2] > 1.0
    (cell,) = count([sample(seconds=0.5)], kind=kind).cells
    assert cell[2] < -0.6


def test_what_has_been_counted_or_says_nothing_does_not_count():
    made = [
        sample(age=1),
        sample(age=2, outcome=Outcome.ENGINE_FAULT),
        sample(age=3, incarnation=9),
        sample(age=60),
        sample(age=90),
    ]
    assert weight(count(made, known(seen_at=NOW - 80))) == 2
    assert weight(count(made, known(fresh_from=NOW - 30))) == 1


def test_a_held_engine_or_one_without_a_sure_fit_has_no_counts():
    held = known(health=Health.VERIFY)
    assert count([sample()], held) == Tallies()
    assert count([sample()], kind=TypeMemory()) == Tallies()
    assert count([sample()], kind=replace(KIND, frozen=False)) == Tallies()
    assert count([]) == Tallies()


def test_counts_of_another_life_are_forgotten():
    old = Tallies(NOW - 500, ((3, 9.0, 0.0, 0.0, 4.0),), 4.0, 40.0)
    assert count([], known(tallies=old, fresh_from=NOW - 100)) != old
    assert not count([], known(tallies=old, fresh_from=NOW - 100)).pauses
    assert count([], known(tallies=old)).pauses == pytest.approx(3.864, abs=1e-3)


def test_idle_canaries_count_once_and_are_late_by_seconds():
    given = canaries(idle=8.0)
    tallies = count([], given=given)
    assert (late(tallies), weight(tallies), tallies.pauses) == (3, 3, 1.0)
    again = known(tallies=tallies)
    assert weight(count([], again, given=given)) < 3
    assert not late(count([], given=canaries(idle=1.0)))
    assert count([], known(baseline=0.0), given=given) == Tallies()
    assert count([], known(shared_at=NOW), given=given) == Tallies()


def test_where_engines_waver_a_request_is_late_later():
    assert late_from(0.05, 0.0) < late_from(0.2, 0.0) < late_from(0.2, 0.3)
