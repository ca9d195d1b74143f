"""What control learns of engines that are well, and what it does not."""

import math
from dataclasses import replace

import pytest

from modelserver.policy.health.cost_model import Reservoir
from modelserver.policy.health.learning import (
    LEVEL_HALF_LIFE,
    LEVEL_LOOKS,
    LEVEL_MOST,
    WANDER,
    WANDER_MEMORY,
)
from modelserver.policy.health.memory import Health, TypeMemory
from modelserver.values import Outcome
from tests.support.control import FIT, NOW, Scene, canaries, samples

KEY = "m@"
HOUR = 3600.0


def fresh(engines: int = 4) -> Scene:
    """A scene whose engines have never been seen before."""
    scene = Scene(engines)
    scene.memory = replace(scene.memory, engines={}, types={})
    return scene


def serve(scene: Scene, looks: int, times: float = 1.0, first: float = 1.0) -> None:
    """Time passes and every engine answers; the first one ``first`` times slower.

    The lengths vary, so that there is something to fit.
    """
    for _ in range(looks):
        for name in scene.engines:
            made = samples(name, number=20, now=scene.now + 10)
            slower = times * (first if name == "m-0" else 1.0)
            scene.samples[name] = (
                tuple(
                    replace(
                        each,
                        ended_at=each.ended_at - 10,  # The look makes them ten older.
                        completion_tokens=50 + 10 * place,
                        seconds=slower * 0.01 * (50 + 10 * place),
                    )
                    for place, each in enumerate(made)
                )
                + scene.samples[name][:44]
            )
        scene.look()


def kind(scene: Scene) -> TypeMemory:
    return scene.memory.types[KEY]


def test_nothing_is_fitted_to_a_few_requests():
    scene = fresh(1)
    serve(scene, 1)
    assert kind(scene).reservoir.offered > 0
    assert kind(scene).fit is None


def test_a_fit_is_made_early_and_frozen_when_it_rests_on_enough():
    scene = fresh()
    serve(scene, 4)
    assert kind(scene).fit
    assert not kind(scene).frozen
    assert scene.own.offset is None
    serve(scene, 60)
    assert kind(scene).frozen
    assert scene.own.offset == pytest.approx(0.0, abs=0.05)


def test_few_requests_are_frozen_after_an_hour():
    scene = fresh(1)
    serve(scene, 10)
    scene.samples["m-0"] = ()
    scene.look(after=HOUR)
    assert kind(scene).frozen


def test_a_level_far_off_is_not_taken_for_normal():
    scene = fresh()
    serve(scene, 64, first=1.28)
    assert kind(scene).frozen
    assert scene.own.offset is None
    assert scene.memory.engines["m-1"].offset is not None


def test_first_canaries_become_the_baseline():
    scene = fresh()
    scene.canaries["m-0"] = canaries(idle=0.25, loaded=0.3)
    scene.look()
    assert (scene.own.baseline, scene.own.loaded_baseline) == (0.25, 0.3)
    assert scene.own.canary_passed_at == 10_000.0


def test_a_first_round_passes_whichever_of_its_canaries_was_slow():
    scene = fresh()
    first, *others = canaries(idle=0.25, loaded=0.3)
    scene.canaries["m-0"] = (first, replace(others[0], seconds=0.4), *others[1:])
    scene.look()
    assert scene.own.baseline == 0.25
    assert scene.own.canary_passed_at == 10_000.0


def test_a_new_engine_slower_than_its_type_gets_no_baseline_and_teaches_nothing():
    scene = Scene(baseline=0.0, loaded_baseline=0.0, offset=None, canary_passed_at=0.0)
    scene.memory = replace(scene.memory, types={})
    scene.canaries["m-0"] = canaries(idle=0.34, loaded=0.4)
    serve(scene, 1)
    assert scene.own.baseline == 0.0
    # Three engines with 44 requests each; the fourth's were not taken.
    others = sum(len(scene.samples[name]) for name in ("m-1", "m-2", "m-3"))
    assert kind(scene).reservoir.offered <= others


def test_a_slow_loaded_canary_gives_no_loaded_baseline():
    scene = Scene(baseline=0.0, loaded_baseline=0.0)
    scene.canaries["m-0"] = canaries(idle=0.25, loaded=0.9)
    scene.look()
    assert (scene.own.baseline, scene.own.loaded_baseline) == (0.25, 0.0)


def test_too_few_or_slow_canaries_pass_nothing():
    scene = Scene(canary_passed_at=0.0)
    scene.canaries["m-0"] = canaries(idle=0.4)[:3]
    scene.look()
    assert (scene.own.baseline, scene.own.canary_passed_at) == (0.25, 0.0)
    new = fresh()
    new.canaries["m-0"] = canaries()[:3]
    new.look()
    assert new.own.baseline == 0.0


def refitted(times: float) -> Scene:
    """A frozen fit, half an hour later, after requests that took ``times`` as long."""
    scene = Scene(offset=0.1)
    for name in scene.engines:
        scene.remember(name, canary_passed_at=scene.now + HOUR)
    serve(scene, 5, times)
    scene.remember("m-1", offset=None)
    scene.memory = replace(
        scene.memory,
        types={KEY: replace(kind(scene), fitted_at=scene.now - HOUR)},
    )
    scene.look()
    return scene


def test_a_refit_changes_no_engines_residual():
    scene = refitted(1.2)
    assert kind(scene).fit
    assert kind(scene).fitted_at == scene.now
    # The fit rose, so the level fell by as much.
    typical = (100.0, 100.0, 2.0, 100.0, 1.0)
    rose = math.log(kind(scene).fit.seconds(typical) / FIT.seconds(typical))
    assert rose > 0.05
    assert scene.own.offset == pytest.approx(0.1 - rose, abs=0.02)


def test_a_frozen_fit_learns_only_from_engines_whose_canary_passed_lately():
    scene = Scene()
    for name in scene.engines:
        scene.remember(name, canary_passed_at=scene.now - HOUR)
    serve(scene, 5)
    assert kind(scene).reservoir == Reservoir()


def test_suspected_engines_teach_nothing():
    scene = Scene(1, health=Health.SUSPECT, slow_ticks=(True,))
    serve(scene, 1)
    assert kind(scene).reservoir.offered == 0


def test_failures_teach_nothing():
    scene = fresh(1)
    scene.samples["m-0"] = samples(outcome=Outcome.ENGINE_FAULT)
    scene.look()
    assert KEY not in scene.memory.types


def test_a_baseline_from_a_fast_moment_gives_way_to_that_of_the_type():
    scene = Scene(health=Health.HEALTHY, baseline=0.16)
    scene.canaries["m-0"] = canaries(idle=0.3)
    decisions = scene.looks(3)
    assert not any(each.verdicts for each in decisions)
    assert scene.own.canary_passed_at == NOW


def answer(scene: Scene, **seconds: float) -> None:
    """A look at which every engine has new requests; ``m_0`` is what m-0 took."""
    for name in scene.engines:
        took = seconds.get(name.replace("-", "_"), 1.0)
        scene.samples[name] = samples(name, seconds=took, now=scene.now)
    scene.look()


# Levels


def test_a_level_from_a_fast_moment_becomes_what_is_usual():
    scene = Scene(offset=-0.2, offset_looks=1)
    for _ in range(20):
        answer(scene)
    assert scene.own.offset == pytest.approx(-0.2 / 21)
    assert scene.own.offset_looks == 21


def test_a_level_made_from_half_an_hour_is_frozen_and_fades():
    scene = Scene(offset=-0.2, offset_looks=LEVEL_LOOKS)
    answer(scene)
    assert scene.own.offset == pytest.approx(-0.2 * 0.5 ** (1 / LEVEL_HALF_LIFE))
    assert scene.own.offset_looks == LEVEL_LOOKS


def test_a_frozen_level_comes_down_where_the_engine_is_faster():
    scene = Scene(offset=0.2, offset_looks=LEVEL_LOOKS)
    types = {KEY: replace(kind(scene), wander=0.02, wander_looks=WANDER_MEMORY)}
    scene.memory = replace(scene.memory, types=types)
    answer(scene)
    assert scene.own.offset == pytest.approx(0.2 - 0.2 / LEVEL_LOOKS)


def test_a_level_of_an_earlier_version_is_capped():
    scene = Scene(offset=math.log(37), offset_looks=LEVEL_LOOKS)
    answer(scene, m_0=2.0)
    assert 0.2 < scene.own.offset <= math.log(LEVEL_MOST)
    scene.slow()
    scene.looks(3)
    assert scene.own.health is Health.DRAINING


def test_a_refit_moves_no_level_beyond_the_cap():
    scene = refitted(0.5)
    assert 0.2 < scene.own.offset <= math.log(LEVEL_MOST)


def test_an_engine_whose_slowness_is_accepted_teaches_nothing():
    scene = Scene(offset=None, accepted=0.5, quiet_until=99_999.0)
    for name in scene.engines:
        scene.remember(name, canary_passed_at=scene.now + HOUR)
    answer(scene, m_0=1.6)
    assert scene.own.offset is None
    assert kind(scene).reservoir.offered == 120


def test_an_engine_without_a_comparison_teaches_no_wander():
    scene = Scene(2)
    scene.samples["m-0"] = tuple(
        replace(each, ended_at=NOW - 30 * place)
        for place, each in enumerate(samples(number=15))
    )
    scene.samples["m-1"] = ()
    scene.look()
    assert scene.own.usual == 0.0
    assert kind(scene).wander_looks == 0


def test_looks_without_new_requests_make_no_level_surer():
    scene = Scene(offset=0.0, offset_looks=5)
    answer(scene)
    scene.samples = {name: () for name in scene.engines}
    scene.looks(3)
    assert scene.own.offset_looks == 6


def test_a_level_never_grows_into_a_fault():
    scene = Scene(offset=0.22, offset_looks=3)
    answer(scene, m_0=1.6)
    assert scene.own.offset == 0.22


def test_engines_under_suspicion_learn_no_level():
    scene = Scene(offset=0.0, offset_looks=3, slow_ticks=(True,))
    answer(scene, m_0=1.1)
    assert scene.own.offset_looks == 3


# Wandering


def test_engines_that_keep_their_speed_are_seen_not_to_wander():
    scene = Scene()
    for _ in range(100):
        answer(scene)
    assert kind(scene).wander < WANDER / 3


def test_engines_that_go_up_and_down_are_seen_to_wander():
    scene = Scene()
    for look in range(100):
        times = math.exp(0.15 * (-1) ** look)
        answer(scene, m_0=times, m_1=1 / times, m_2=times, m_3=1 / times)
    assert 0.15 < kind(scene).wander < 0.45


def test_one_slow_engine_of_four_does_not_make_them_wanderers():
    scene = Scene()
    for _ in range(100):
        answer(scene, m_0=1.3)
    assert kind(scene).wander < WANDER / 3


def test_wandering_is_forgotten_within_hours():
    scene = Scene()
    types = {"m@": replace(kind(scene), wander=0.3, wander_looks=WANDER_MEMORY)}
    scene.memory = replace(scene.memory, types=types)
    answer(scene)
    assert kind(scene).wander == pytest.approx(0.3 * (1 - 1 / WANDER_MEMORY))
