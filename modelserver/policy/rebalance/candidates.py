"""Where one more engine of a model could be, and who would have to end for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from modelserver.inventory import Gpu, Host
from modelserver.policy.placement.rooms import HostRoom
from modelserver.policy.rebalance.pressure import least_work
from modelserver.policy.rebalance.scene import RebalanceScene
from modelserver.policy.rebalance.state import EngineView


@dataclass(frozen=True, slots=True)
class Candidate:
    """GPUs of a host where an engine could be."""

    host: str
    uuids: tuple[str, ...]
    #: T: until the donors have drained and the engine has loaded.
    seconds: float
    #: The engines that would end for it.
    donors: tuple[EngineView, ...] = ()
    #: How many GPUs would change hands.
    gpus: int = 0
    #: Whether the donors have nothing to do.
    idle: bool = False

    @property
    def rank(self) -> tuple[float, int, str, tuple[str, ...]]:
        """Sorts the best to the front: the smallest T, then the fewest GPUs."""
        donors = tuple(engine.id for engine in self.donors)
        return (self.seconds, self.gpus, self.host, donors)


def room_of(
    scene: RebalanceScene, host: Host, without: Sequence[EngineView] = ()
) -> HostRoom:
    """What a host has to give once these engines have ended."""
    gone = {engine.id for engine in without}
    room = HostRoom(replace(host, gpus=tuple(_freed(gpu, gone) for gpu in host.gpus)))
    for engine in scene.view.engines:
        if engine.host == host.name and engine.id not in gone:
            room.claim(engine.id, scene.need(engine.model), engine.uuids)
    for move in scene.moves:
        if move.host == host.name:
            room.claim(move.engine, scene.need(move.model), move.uuids)
    return room


def _freed(gpu: Gpu, gone: set[str]) -> Gpu:
    left = tuple(each for each in gpu.processes if each.engine not in gone)
    freed = sum(each.used for each in gpu.processes) - sum(each.used for each in left)
    if len(left) == len(gpu.processes):
        return gpu
    free, used = min(gpu.total, gpu.free + freed), max(0, gpu.used - freed)
    return replace(gpu, processes=left, free=free, used=used)


def free_places(scene: RebalanceScene, name: str) -> list[Candidate]:
    """The places where nobody has to end, the best first."""
    need = scene.need(name)
    found = []
    for host in scene.view.hosts:
        fit = room_of(scene, host).find_offer(need)
        if fit:
            seconds = scene.load_seconds(name, host.name)
            found.append((fit.cost, Candidate(host.name, fit.uuids, seconds)))
    found.sort(key=lambda each: (each[1].seconds, each[0], each[1].host))
    return [candidate for _, candidate in found]


def donated_places(scene: RebalanceScene, name: str) -> list[Candidate]:
    """The places where engines of other models end for it, the best first."""
    if not scene.need(name).gpus:
        return []
    found = {
        candidate.rank: candidate
        for host in scene.view.hosts
        for group in _groups(scene, name, host)
        for candidate in _released(scene, name, host, group)
    }
    return [found[rank] for rank in sorted(found)]


def _groups(scene: RebalanceScene, name: str, host: Host) -> Iterator[list[EngineView]]:
    """Engines that might end, model by model, then those of all models together."""
    every: list[EngineView] = []
    for donor in scene.models:
        ids = scene.by_worth(donor) if donor != name else []
        views = [scene.engines[engine] for engine in ids if engine in scene.engines]
        here = [each for each in views if each.host == host.name and each.uuids]
        if here:
            every += here
            yield here
    if len({each.model for each in every}) > 1:
        yield sorted(every, key=lambda each: scene.drain_seconds([each]))


def _released(
    scene: RebalanceScene, name: str, host: Host, group: Sequence[EngineView]
) -> Iterator[Candidate]:
    """The first of the group that make room, if they may end."""
    need, ending, fit = scene.need(name), list[EngineView](), None
    for engine in group:
        more = [*ending, engine]
        if refusal(scene, name, host.name, more):
            continue
        ending, fit = more, room_of(scene, host, more).find_offer(need)
        if fit:
            break
    if fit is None:
        return
    for engine in ending[:-1]:
        fewer = [each for each in ending if each is not engine]
        if less := room_of(scene, host, fewer).find_offer(need):
            ending, fit = fewer, less
    gpus = {uuid for each in ending for uuid in each.uuids} | set(fit.uuids)
    idle = all(is_idle(scene, each.model) for each in ending)
    seconds = scene.drain_seconds(ending) + scene.load_seconds(name, host.name)
    yield Candidate(host.name, fit.uuids, seconds, tuple(ending), len(gpus), idle)


def refusals(scene: RebalanceScene, name: str) -> str:
    """Why nobody can give this model a GPU, donor by donor."""
    found = []
    for donor in scene.models:
        ids = scene.by_worth(donor) if donor != name else []
        views = [scene.engines[engine] for engine in ids if engine in scene.engines]
        views = [each for each in views if each.uuids]
        if views:
            why = refusal(scene, name, views[0].host, views[:1])
            found.append(why or f"an engine of {donor} would not free enough memory")
    return "; ".join(found) or "no other model has a GPU that it could give"


def is_idle(scene: RebalanceScene, name: str) -> bool:
    """Whether a model has had nothing to do for a while."""
    return scene.quiet_seconds(name) >= scene.rules.quiet_seconds


def refusal(
    scene: RebalanceScene, taker: str, host: str, ending: Sequence[EngineView]
) -> str:
    """Why these engines may not end for the taker; "" where they may."""
    seconds = scene.drain_seconds(ending) + scene.load_seconds(taker, host)
    for donor in sorted({engine.model for engine in ending}):
        lost = [engine.id for engine in ending if engine.model == donor]
        why = _refusal_of(scene, donor, lost) or _reverses(scene, donor, taker, seconds)
        if why:
            return why
    return ""


def _refusal_of(scene: RebalanceScene, donor: str, lost: Sequence[str]) -> str:
    rules, spec = scene.rules, scene.models[donor].spec
    planned = scene.planned(donor)
    runs = [engine for engine in lost if engine in planned]
    left = len(scene.own(donor)) - len(lost)
    if left < spec.min_engines or (
        runs and len(planned) - len(runs) < spec.min_engines
    ):
        return f"{donor} keeps min_engines {spec.min_engines}"
    if not runs:
        return ""
    meter = scene.meters[donor]
    if meter.hot_ticks or any(move.model == donor for move in scene.moves):
        return f"{donor} needs engines itself"
    if is_idle(scene, donor):
        return ""
    if meter.observed < rules.average_seconds:
        return f"{donor} has been watched for only {meter.observed:.0f} s"
    serving = [engine.id for engine in scene.serving(donor) if engine.id not in lost]
    after = scene.pressure(donor, len(serving), peak=True)
    if not after.bears(rules.donor_load, rules.donor_drain_seconds):
        return (
            f"{donor} needs what it has: lambda {after.arrivals:.3g}/s, mu "
            f"{after.capacity:.3g}/s, {after.engines} engines left, Q {after.queue:.0f}"
        )
    busy = scene.inflight(donor)
    if busy > rules.donor_load * spec.max_running * len(serving):
        return f"{donor} has {busy} in flight, too many for {len(serving)} engines"
    return ""


def _reverses(scene: RebalanceScene, donor: str, taker: str, seconds: float) -> str:
    """Why GPUs may not go back so soon, "" where they may; each quick turn counts."""
    rules, pair = scene.rules, {donor, taker}
    between = [each for each in scene.past if {each.donor, each.taker} == pair]
    last = max((e.at for e in between if e.donor == taker), default=None)
    if last is None:
        return ""
    turns = sum(
        one.donor != two.donor and two.at - one.at < rules.reverse_seconds
        for one, two in pairwise(between)
    )
    patience: float = 2.0**turns
    if scene.now - last >= rules.reverse_seconds:
        return ""
    need = scene.pressure(taker, len(scene.planned(taker))).work_seconds
    if need >= rules.reverse_times * patience * least_work(seconds, rules):
        return ""
    turned = f", after {turns} quick turns within the hour" if turns else ""
    return f"{taker} gave {donor} an engine {scene.now - last:.0f} s ago{turned}"
