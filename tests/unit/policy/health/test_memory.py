"""What control remembers, as it is stored."""

from dataclasses import replace

from modelserver.policy.health.memory import (
    HealthMemory,
    TypeMemory,
    engine_memories,
    from_json,
    to_json,
)
from tests.support.control import (
    Scene,
    second_incarnation,
)


def test_memory_survives_the_store():
    scene = second_incarnation()
    text = to_json(scene.memory)
    assert from_json(text) == scene.memory
    assert to_json(from_json(text)) == text
    assert from_json("") == HealthMemory()
    assert engine_memories(text) == scene.memory.engines
    assert engine_memories("") == {}


def test_a_later_versions_memory_can_be_read():
    text = to_json(Scene().memory).replace('"place"', '"later": 1, "place"')
    assert from_json(text) == Scene().memory


def test_a_fit_that_is_not_there_yet_survives_too():
    scene = Scene()
    scene.memory = replace(scene.memory, types={"m@": TypeMemory()})
    assert from_json(to_json(scene.memory)) == scene.memory
