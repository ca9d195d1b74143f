"""How a snapshot looks to the rules that move engines."""

from modelserver.inventory import Host
from modelserver.measured import EngineLoad
from modelserver.policy.rebalance.demand import view_of
from modelserver.policy.rebalance.state import EngineView
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineReport, EngineSpec, EngineState, Wish
from tests.scenarios.moves_world import model
from tests.support import processes

READY, DRAINING = EngineState.READY, EngineState.DRAINING
PENDING, STOPPED = EngineState.PENDING, EngineState.STOPPED


def test_wishes_and_reports_become_engines_with_their_gpus() -> None:
    wishes = [
        EngineSpec("m-0", "m", "h", uuids=("GPU-0",)),
        EngineSpec("m-1", "m", "h", uuids=("GPU-1",)),
        EngineSpec("m-2", "m", "lost", uuids=("x",)),
        EngineSpec("m-4", "m", "h", uuids=("GPU-4",)),
    ]
    reports = [
        EngineReport("m-0", "m", "h", READY, gpus=(0,)),
        EngineReport("m-2", "m", "lost", READY),
        EngineReport("m-3", "m", "h", READY, gpus=(3,)),
        EngineReport("m-4", "m", "h", STOPPED),
        EngineReport("m-5", "m", "h", STOPPED),
    ]
    snapshot = Snapshot(
        (model("m", 1, 5),),
        (),
        (Host("h", processes.gpus(8)),),
        {each.id: each for each in reports},
        {each.id: Wish(each) for each in wishes},
        {"m-0": EngineLoad(7, 1.0, 0.0)},
        queues={"m": 12},
        finished={"m-0": 99},
    )
    view = view_of(snapshot, now=0.0)
    assert view.engines == (
        EngineView("m-0", "m", "h", READY, ("GPU-0",), 7, 99.0),
        EngineView("m-1", "m", "h", PENDING, ("GPU-1",)),
        EngineView("m-2", "m", "", PENDING),
        EngineView("m-3", "m", "h", DRAINING, ("GPU-3",)),
        EngineView("m-4", "m", "h", PENDING, ("GPU-4",)),
    )
    assert view.models[0].waiting == 12
