"""The rules in their order.

Moves in flight go on, models without engines wake, hot ones grow, surplus ends, idle
ones sleep.
"""

import math
from collections.abc import Mapping

from modelserver.policy.rebalance.candidates import (
    Candidate,
    donated_places,
    free_places,
    refusals,
)
from modelserver.policy.rebalance.measuring import (
    Tick,
    capacity,
    enter,
    finished_since,
    measure,
)
from modelserver.policy.rebalance.pressure import NEVER_SECONDS
from modelserver.policy.rebalance.scene import RebalanceScene
from modelserver.policy.rebalance.state import (
    GpuMove,
    RebalanceMemory,
    RebalanceOutcome,
    RebalanceRules,
    RebalanceView,
)
from modelserver.policy.rebalance.transit import advance
from modelserver.policy.rebalance.turning import all_come_home
from modelserver.values import EngineSpec


def rebalance(
    view: RebalanceView, memory: RebalanceMemory, rules: RebalanceRules, now: float
) -> RebalanceOutcome:
    """Which engines to want from now on, what to remember, and why.

    May be called as often as wished: it measures and moves every ``tick_seconds``,
    between them it only lets moves go on, wakes models and lets idle ones sleep.
    ``now`` is seconds of a clock that ``memory`` was made by as well. Pinned engines
    are counted and never moved; models that somebody else runs are left out.
    """
    scene = RebalanceScene(view, memory, rules, now)
    advance(scene)
    ticked_at, finished = memory.ticked_at, memory.finished
    if ticked_at is None or now - ticked_at >= rules.tick_seconds or now < ticked_at:
        seconds = 0.0 if ticked_at is None else max(0.0, now - ticked_at)
        _measure(scene, finished, seconds)
        finished = {each.id: each.finished for each in view.engines}
        _note_quiet(scene)
        _heat(scene)
        _wake(scene)
        _grow(scene)
        _shrink(scene)
        ticked_at = now
    else:
        _note_quiet(scene)
        _wake(scene)
    _sleep(scene)
    return _outcome(
        scene,
        RebalanceMemory(
            ticked_at,
            dict(scene.meters),
            finished,
            tuple(scene.moves),
            tuple(scene.past),
        ),
    )


def _outcome(scene: RebalanceScene, memory: RebalanceMemory) -> RebalanceOutcome:
    places = {move.engine: move for move in scene.moves if move.starts_at is not None}
    wanted = []
    for name, meter in scene.meters.items():
        for engine in meter.wanted:
            place = places.get(engine)
            if place is None:
                wanted.append(EngineSpec(engine, name, ""))
            else:
                wanted.append(EngineSpec(engine, name, place.host, uuids=place.uuids))
    reserved: dict[str, EngineSpec] = {}
    for move in scene.moves:
        taker = EngineSpec(move.engine, move.model, move.host, uuids=move.uuids)
        reserved |= dict.fromkeys(move.uuids, taker)
    minimums = {name: scene.least(name) for name in scene.models}
    return RebalanceOutcome(
        tuple(wanted), memory, tuple(scene.reasons), reserved, minimums
    )


# Measuring.


def _measure(
    scene: RebalanceScene, before: Mapping[str, float], seconds: float
) -> None:
    for name, model in scene.models.items():
        gains = finished_since(scene.of(name), before)
        tick = Tick(
            model,
            tuple(scene.serving(name)),
            scene.inflight(name),
            sum(gains.values()),
            seconds,
        )
        meter = scene.meters[name]
        after = measure(meter, tick, scene.rules)
        unmoved = scene.unmoved(name)
        scene.meters[name] = enter(after, meter, tick, unmoved, scene.now)


def _note_quiet(scene: RebalanceScene) -> None:
    for name, model in scene.models.items():
        meter = scene.meters[name]
        seen = sum(each.finished for each in scene.of(name))
        busy = model.waiting > 0 or scene.inflight(name) > 0 or seen > meter.seen
        since = None if busy else meter.quiet_since
        if not busy and since is None:
            since = scene.now
        scene.update(name, quiet_since=since, seen=seen)


def _heat(scene: RebalanceScene) -> None:
    """Count for how many ticks in a row each model has needed more."""
    for name in scene.models:
        hot = _is_hot(scene, name)
        ticks = scene.meters[name].hot_ticks + 1 if hot else 0
        scene.update(name, hot_ticks=ticks)
        if not hot:
            scene.update(name, refused="")


def _is_hot(scene: RebalanceScene, name: str) -> bool:
    if scene.fails(name) or scene.need(name).nodes > 1:
        return False  # No engine would help, or no single host has a place for it.
    if scene.unplaced(name):
        return True
    engines = len(scene.planned(name))
    pressure = scene.pressure(name, engines)
    if engines and capacity(scene.meters[name], scene.models[name]) is None:
        return False  # Its first engine has answered nothing yet.
    if not pressure.is_hot(0.0, scene.rules):
        return False
    places = free_places(scene, name) or donated_places(scene, name)
    if places:
        seconds = places[0].seconds
    else:
        spec = scene.models[name].spec
        seconds = scene.load_seconds(name, "") + spec.drain_seconds
    return pressure.is_hot(seconds, scene.rules)


# Waking and sleeping.


def _wake(scene: RebalanceScene) -> None:
    """Start an engine of a model that has none and is asked for."""
    for name in scene.by_rank:
        model = scene.models[name]
        if not model.waiting or scene.own(name) or scene.planned(name):
            continue
        if not model.spec.max_engines:
            continue
        places = free_places(scene, name)
        if not places:
            idle = [each for each in donated_places(scene, name) if each.idle]
            places = [e for e in idle if _may_move(scene, name, e, alone=True)]
        if places:
            _begin(scene, name, places[0], "is asked for and has no engine")


def _sleep(scene: RebalanceScene) -> None:
    """End the engines of a model that nobody has asked for, down to min_engines."""
    for name, model in scene.models.items():
        spec, quiet = model.spec, scene.quiet_seconds(name)
        if quiet < spec.idle_seconds or any(m.model == name for m in scene.moves):
            continue
        for engine in scene.by_worth(name):
            if len(scene.own(name)) <= scene.least(name):
                break
            scene.unwant(name, engine)
            scene.come_home(name, -1)
            scene.say(
                name,
                f"ends {engine}: nobody asks for it",
                idle_seconds=quiet,
                after_seconds=spec.idle_seconds,
            )


# Growing and shrinking.


def _grow(scene: RebalanceScene) -> None:
    """Give models an engine each, from donors one in all: by rank, then the hottest."""
    ready = [name for name in scene.meters if _has_been_hot(scene, name)]

    def heat(name: str) -> tuple[int, float, float, str]:
        rank = scene.models[name].spec.priority
        pressure = scene.pressure(name, len(scene.planned(name)))
        return (-rank, -pressure.drain_seconds, -pressure.work_seconds, name)

    for name in sorted(ready, key=heat):
        _grow_one(scene, name)


def _has_been_hot(scene: RebalanceScene, name: str) -> bool:
    """Whether it has been hot for long enough: one tick where it has given engines."""
    meter = scene.meters[name]
    least = 1 if meter.ledger.gained < 0 else scene.rules.hot_ticks
    return meter.hot_ticks >= least


def _grow_one(scene: RebalanceScene, name: str) -> None:
    spec, planned = scene.models[name].spec, scene.planned(name)
    unplaced = scene.unplaced(name)
    pressure = scene.pressure(name, len(planned))
    if len(planned | set(scene.own(name))) >= spec.max_engines and not unplaced:
        most = spec.max_engines
        scene.refuse(
            name, f"is hot and has its max_engines {most}", **pressure.figures()
        )
        return
    gave = scene.meters[name].ledger.gained < 0
    if _since_growth(scene, name) < scene.rules.pause_seconds and not gave:
        return
    why = _why_grow(scene, name)
    free = free_places(scene, name)
    if free and unplaced:
        return  # It is being placed there.
    if free and (not planned or pressure.pays(free[0].seconds)):
        _begin(scene, name, free[0], why)
        return
    places = [
        each
        for each in donated_places(scene, name)
        if unplaced or not planned or pressure.pays(each.seconds)
    ]
    allowed = [each for each in places if _may_move(scene, name, each)]
    if allowed:
        _begin(scene, name, allowed[0], why)
    else:
        why_not = _why_not(scene, name, places)
        scene.refuse(name, f"{why}; {why_not}", **pressure.figures())


def _why_grow(scene: RebalanceScene, name: str) -> str:
    window = scene.windows[name]
    by_clock = window is not None and scene.unplaced(name)
    return f"needs more by its schedule {window}" if by_clock else "is hot"


def _why_not(scene: RebalanceScene, name: str, places: list[Candidate]) -> str:
    if places:
        return "another move has to be over first"
    offers = donated_places(scene, name)
    if not offers:
        return refusals(scene, name)
    pressure = scene.pressure(name, len(scene.planned(name)))
    seconds = offers[0].seconds
    gain = pressure.gain_seconds(seconds)
    return f"a move would take {seconds:.0f} s and gain {gain:.0f} s"


def _since_growth(scene: RebalanceScene, name: str) -> float:
    times = [each.at for each in scene.past if each.taker == name]
    return scene.now - max(times, default=-math.inf)


def _may_move(
    scene: RebalanceScene, name: str, candidate: Candidate, alone: bool = False
) -> bool:
    """Whether so many GPUs may start to move to this model now.

    What comes back to where it belongs need not pause. ``alone`` allows for any number
    where nothing else moves: the GPUs of an idle donor do no work that could be missed.
    """
    given = [each.at for each in scene.past if each.donor]
    donors = [engine.model for engine in candidate.donors]
    since = scene.now - max(given, default=-math.inf)
    if since < scene.rules.pause_seconds and not all_come_home(scene, donors, name):
        return False
    moving = scene.moving_gpus
    return moving + candidate.gpus <= scene.gpus_at_once or (alone and not moving)


def _begin(scene: RebalanceScene, name: str, place: Candidate, why: str) -> None:
    pressure = scene.pressure(name, len(scene.planned(name)))
    figures = pressure.figures()
    spare = scene.unplaced(name)
    engine = spare[0] if spare else scene.new_id(name)
    donors = tuple(each.id for each in place.donors)
    models = tuple(dict.fromkeys(each.model for each in place.donors))
    for donor in models:
        left = len(set(scene.planned(donor)) - set(donors))
        given = scene.pressure(donor, left, peak=True).figures()
        figures |= {f"{key} of {donor}": value for key, value in given.items()}
    scene.begin(
        GpuMove(
            at=scene.now,
            engine=engine,
            model=name,
            host=place.host,
            uuids=place.uuids,
            donors=donors,
            donor_models=models,
            gpus=place.gpus,
            starts_at=None if donors else scene.now,
        )
    )
    what = f"{engine} gets a place on host {place.host}: {name} {why}"
    if donors:
        what += f"; {', '.join(donors)} end for it"
        what += ", outranked by it" if place.forced is not None else ""
    else:
        what += "; its GPUs are free" if place.uuids else ""
    scene.say(name, what, T=place.seconds, **figures)


def _shrink(scene: RebalanceScene) -> None:
    """End one engine of a model that has not needed it for its idle_seconds."""
    for name, model in scene.models.items():
        meter = scene.meters[name]
        if not _has_surplus(scene, name):
            scene.update(name, surplus_since=None)
        elif meter.surplus_since is None:
            scene.update(name, surplus_since=scene.now)
        elif scene.now - meter.surplus_since >= model.spec.idle_seconds:
            engine = scene.by_worth(name)[0]
            pressure = scene.pressure(name, len(scene.planned(name)), peak=True)
            scene.unwant(name, engine)
            scene.come_home(name, -1)
            scene.update(name, surplus_since=scene.now)
            since = scene.now - meter.surplus_since
            what = f"ends {engine}: not needed for {since:.0f} s"
            scene.say(name, what, **pressure.figures())


def _has_surplus(scene: RebalanceScene, name: str) -> bool:
    rules, spec = scene.rules, scene.models[name].spec
    meter, serving = scene.meters[name], scene.serving(name)
    left = len(serving) - 1
    if not meter.wanted or len(scene.own(name)) <= max(1, scene.least(name)):
        return False
    if left < max(1, scene.least(name)) or meter.observed < rules.average_seconds:
        return False
    if meter.hot_ticks or any(move.model == name for move in scene.moves):
        return False
    if scene.inflight(name) > rules.surplus_load * spec.max_running * left:
        return False
    after = scene.pressure(name, left, peak=True)
    return after.drain_seconds < NEVER_SECONDS and after.bears(
        rules.surplus_load, rules.donor_drain_seconds
    )
