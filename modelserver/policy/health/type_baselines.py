"""What canaries take on engines of a type that were well, also when none is left. Pure.

A new engine is measured against it, so that one which is slow from its first second is
found where it is the only one. It is forgotten when the model's settings change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import median
from zlib import crc32

from modelserver.policy.health.memory import EngineMemory, TypeMemory
from modelserver.policy.health.observation import Observation
from modelserver.values import ModelSpec

#: Each further engine moves the figures of its type by an eighth of the difference.
SHARE_OF_NEW = 1 / 8


def settings_of(spec: ModelSpec) -> int:
    """A checksum of the settings that the speed of a model's engines depends on."""
    values = (
        (spec.path, spec.engine, spec.engine_version, spec.interpreter, spec.image),
        (spec.gpus, spec.gpu_memory_gib, spec.share_gpu, spec.data_parallel),
        (spec.context_length, spec.torch_compile, spec.extra_args, spec.command),
        (spec.container_args, sorted(spec.environment.items())),
    )
    return crc32(repr(values).encode())


def baseline_of_type(
    types: Mapping[str, TypeMemory], observation: Observation, loaded: bool
) -> float:
    """Seconds of a canary on engines of its type that were well; 0 where unknown."""
    kind = types.get(observation.type)
    if kind is None or kind.settings != settings_of(observation.spec):
        return 0.0
    return kind.loaded_baseline if loaded else kind.baseline


def with_type_baselines(
    observations: Mapping[str, Observation],
    before: Mapping[str, EngineMemory],
    after: Mapping[str, EngineMemory],
    types: Mapping[str, TypeMemory],
) -> dict[str, TypeMemory]:
    """The types after a look at which engines' own baselines were learned."""
    learned = dict(types)
    of_type: dict[str, list[str]] = {}
    for name, observation in observations.items():
        of_type.setdefault(observation.type, []).append(name)
    for key, names in of_type.items():
        old = learned.get(key, TypeMemory())
        settings = settings_of(observations[names[0]].spec)
        if old.settings != settings:
            old = replace(old, baseline=0.0, loaded_baseline=0.0, settings=settings)
        idle = [(before[each].baseline, after[each].baseline) for each in names]
        loaded = [
            (before[each].loaded_baseline, after[each].loaded_baseline)
            for each in names
        ]
        new = replace(
            old,
            baseline=_moved(old.baseline, idle),
            loaded_baseline=_moved(old.loaded_baseline, loaded),
        )
        if new.baseline:
            learned[key] = new
    return learned


def _moved(known: float, changes: Iterable[tuple[float, float]]) -> float:
    """A figure of a type after those of its engines, each before and after the look."""
    pairs = list(changes)
    if not known:
        return median([new for _, new in pairs if new] or [0.0])
    for old, new in pairs:
        if new and not old:
            known += SHARE_OF_NEW * (new - known)
    return known
