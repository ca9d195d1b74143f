"""Which engines control sees, and which it takes for new ones."""

from dataclasses import replace

from modelserver.inventory import Gpu, Host
from modelserver.policy.decide import consider
from modelserver.values import (
    Wish,
)
from tests.support.control import (
    RULES,
    Scene,
    verifying,
)


def test_gpu_types_have_fits_of_their_own_and_a_new_place_is_a_new_engine():
    scene = Scene(2)
    gpus = [Gpu(n, f"u{n}", name, 80, 0, 80) for n, name in enumerate(("A", "B"))]
    scene.hosts, scene.spec = (
        (Host("a", gpus=tuple(gpus)),),
        replace(scene.spec, gpus=1),
    )
    for place, name in enumerate(scene.wishes):
        spec = replace(scene.wishes[name].spec, uuids=(f"u{place}",))
        scene.wishes[name] = Wish(spec)
    scene.look()
    assert scene.own.place == "a/u0"
    assert scene.own.baseline == 0.0
    assert {"m@A", "m@B"} <= set(scene.memory.types)


def test_canaries_go_on_being_numbered_when_memory_is_lost():
    scene = verifying()
    scene.memory = replace(scene.memory, engines={})
    scene.look()
    assert scene.wishes["m-0"].hold == ""
    assert scene.own.round == scene.wishes["m-0"].canary == 1


def test_what_leaves_the_fleet_is_forgotten():
    scene = Scene()
    scene.look()
    del scene.wishes["m-3"]
    scene.spec = replace(scene.spec, min_engines=3, max_engines=3)
    decision = consider(scene.snapshot(), RULES, scene.now + 10)
    assert "m-3" not in decision.memory.engines
