"""Moves in flight: the donors end, then the engine starts, then the move is over."""

from dataclasses import replace

from modelserver.policy.rebalance.candidates import free_places, room_of
from modelserver.policy.rebalance.scene import RebalanceScene
from modelserver.policy.rebalance.state import GpuMove

#: Seconds after the donors' drain by which their GPUs must be free for the move.
RELEASE_SECONDS = 300.0
#: A start is given up after this multiple of the expected seconds, and START_SECONDS.
START_TIMES = 3.0
#: The seconds that a start gets on top of START_TIMES.
START_SECONDS = 300.0


def advance(scene: RebalanceScene) -> None:
    """Take every move one step on, where what it waits for has happened."""
    for move in list(scene.moves):
        scene.moves.remove(move)
        after = (
            _start_if_released(scene, move)
            if move.starts_at is None
            else _end_if_arrived(scene, move)
        )
        if after is not None:
            scene.moves.append(after)


def _start_if_released(scene: RebalanceScene, move: GpuMove) -> GpuMove | None:
    waited = scene.now - move.at
    if any(donor in scene.engines for donor in move.donors):
        drains = [
            scene.models[name].spec.drain_seconds
            for name in move.donor_models
            if name in scene.models
        ]
        if waited <= max(drains, default=0.0) + RELEASE_SECONDS:
            return move
        ending = ", ".join(move.donors)
        scene.give_up(move, f"{ending} did not end")
        return None
    for name in move.donor_models:
        if name in scene.meters:
            drained = scene.meters[name].drain_seconds
            mean = waited if drained is None else (drained + waited) / 2
            scene.update(name, drain_seconds=mean)
    if not _still_needed(scene, move):
        scene.give_up(move, "its queue is empty")
        return None
    return _start(scene, move)


def _still_needed(scene: RebalanceScene, move: GpuMove) -> bool:
    model, own = scene.models[move.model], scene.own(move.model)
    if move.engine in own:
        return True
    return len(own) < model.spec.max_engines and model.waiting > 0


def _start(scene: RebalanceScene, move: GpuMove) -> GpuMove | None:
    need = scene.need(move.model)
    for host in scene.view.hosts:
        if host.name != move.host:
            continue
        room = room_of(scene, host)
        own = room.find(move.uuids)
        if len(own) == need.gpus and all(gpu.fits(need, move.engine) for gpu in own):
            scene.want(move.model, move.engine)
            return replace(move, starts_at=scene.now)
    # Somebody else has taken them, or the host is gone.
    for place in free_places(scene, move.model):
        scene.want(move.model, move.engine)
        where = {"host": place.host, "uuids": place.uuids}
        return replace(move, starts_at=scene.now, **where)  # type: ignore[arg-type]
    if scene.now - move.at <= RELEASE_SECONDS:
        return move
    scene.give_up(move, "its GPUs did not become free")
    return None


def _end_if_arrived(scene: RebalanceScene, move: GpuMove) -> GpuMove | None:
    started = scene.now if move.starts_at is None else move.starts_at
    view, took = scene.engines.get(move.engine), scene.now - started
    if move.engine not in scene.own(move.model):
        return None
    if view is not None and view.state.serves:
        known = dict(scene.meters[move.model].load_seconds)
        known[move.host] = (known.get(move.host, took) + took) / 2
        scene.update(move.model, load_seconds=known)
        scene.say(move.model, f"{move.engine} serves", load_seconds=took)
        return None
    if view is not None and view.failed:
        scene.say(move.model, f"{move.engine} did not start")
        return None
    expected = scene.load_seconds(move.model, move.host)
    return move if took <= START_TIMES * expected + START_SECONDS else None
