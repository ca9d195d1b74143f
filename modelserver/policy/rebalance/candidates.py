"""Where one more engine of a model could be, and who would have to end for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from modelserver.inventory import Gpu, Host
from modelserver.policy.placement.rooms import HOLDING, HostRoom
from modelserver.policy.rebalance import turning
from modelserver.policy.rebalance.measuring import recent_rate
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
    #: The highest rank of donors that need what they give and are outranked, None
    #: where none does.
    forced: int | None = None

    @property
    def order(self) -> tuple[bool, int, float, int, str, tuple[str, ...]]:
        """Sorts the best to the front: nobody forced, the smallest T, the fewest GPUs.

        Of those who are forced, the one of the lowest rank comes first.
        """
        donors = tuple(engine.id for engine in self.donors)
        forced = (self.forced is not None, self.forced or 0)
        return (*forced, self.seconds, self.gpus, self.host, donors)


def room_of(
    scene: RebalanceScene, host: Host, without: Sequence[EngineView] = ()
) -> HostRoom:
    """What a host has to give once these engines have ended."""
    gone = {engine.id for engine in without}
    room = HostRoom(replace(host, gpus=tuple(_freed(gpu, gone) for gpu in host.gpus)))
    for engine in scene.view.engines:
        for place in engine.places if engine.id not in gone else ():
            if place.host == host.name:
                holds = engine.state in HOLDING
                room.claim(engine.id, scene.need(engine.model), place.uuids, holds)
    for move in scene.moves:
        if move.host == host.name and move.engine not in gone:
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
        candidate.order: candidate
        for host in scene.view.hosts
        for group in _groups(scene, name, host)
        for candidate in _released(scene, name, host, group)
    }
    return [found[order] for order in sorted(found)]


def _groups(scene: RebalanceScene, name: str, host: Host) -> Iterator[list[EngineView]]:
    """Engines that might end, model by model, then those of all models together."""
    every: list[EngineView] = []
    for donor in scene.models:
        ids = scene.by_worth(donor) if donor != name else []
        views = [scene.engines[engine] for engine in ids if engine in scene.engines]
        here = [each for each in views if each.host == host.name and each.uuids]
        here = [each for each in here if not each.followers]
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
    forced = _forced(scene, name, ending)
    yield Candidate(
        host.name, fit.uuids, seconds, tuple(ending), len(gpus), idle, forced
    )


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
    for donor, lost in _by_donor(ending).items():
        why = _minimum(scene, donor, taker, lost)
        if not why and not scene.outranks(taker, donor):
            why = _need(scene, donor, taker, lost)
            why = why or turning.refusal(scene, donor, taker, seconds)
        if why:
            return why
    return ""


def _by_donor(ending: Sequence[EngineView]) -> dict[str, list[str]]:
    donors = sorted({engine.model for engine in ending})
    return {
        donor: [each.id for each in ending if each.model == donor] for donor in donors
    }


def _forced(
    scene: RebalanceScene, taker: str, ending: Sequence[EngineView]
) -> int | None:
    """The highest rank of the donors that give only because they are outranked."""
    ranks = [
        scene.models[donor].spec.priority
        for donor, lost in _by_donor(ending).items()
        if scene.outranks(taker, donor) and _need(scene, donor, taker, lost)
    ]
    return max(ranks, default=None)


def _minimum(scene: RebalanceScene, donor: str, taker: str, lost: Sequence[str]) -> str:
    """Why the donor would have too few engines, "" where it would not.

    What its schedule alone asks for yields to a model of higher rank that has not its
    own minimum.
    """
    spec, planned = scene.models[donor].spec, scene.planned(donor)
    runs = [engine for engine in lost if engine in planned]
    yields = scene.outranks(taker, donor) and scene.unplaced(taker)
    least = spec.min_engines if yields else scene.least(donor)
    left = len(scene.own(donor)) - len(lost)
    if left >= least and not (runs and len(planned) - len(runs) < least):
        return ""
    by_clock = " of its schedule" if least > spec.min_engines else ""
    return f"{donor} keeps min_engines {least}{by_clock}"


def _need(scene: RebalanceScene, donor: str, taker: str, lost: Sequence[str]) -> str:
    """Why the donor cannot spare these engines, "" where it can."""
    rules, spec, meter = scene.rules, scene.models[donor].spec, scene.meters[donor]
    if not scene.planned(donor).intersection(lost):
        return ""
    if meter.hot_ticks or any(move.model == donor for move in scene.moves):
        return f"{donor} needs engines itself"
    if is_idle(scene, donor):
        return ""
    if meter.observed < rules.average_seconds:
        return f"{donor} has been watched for only {meter.observed:.0f} s"
    home = turning.comes_home(scene, donor, taker)
    serving = [engine.id for engine in scene.serving(donor) if engine.id not in lost]
    after = scene.pressure(donor, len(serving), peak=True)
    if home:
        after = replace(after, arrivals=recent_rate(meter, rules))
    if not after.bears(rules.donor_load, rules.donor_drain_seconds):
        return (
            f"{donor} needs what it has: lambda {after.arrivals:.3g}/s, mu "
            f"{after.capacity:.3g}/s, {after.engines} engines left, Q {after.queue:.0f}"
        )
    busy = scene.inflight(donor)
    if busy > rules.donor_load * spec.max_running * len(serving) and not home:
        return f"{donor} has {busy} in flight, too many for {len(serving)} engines"
    return ""
