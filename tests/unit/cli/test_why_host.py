"""What `modelserver why HOST` says of a host that is silent."""

from types import SimpleNamespace

import pytest

from modelserver.cli.why_host import describe_host
from modelserver.operations.status import FleetStatus, QueueStatus, Status
from modelserver.values import EngineState


@pytest.mark.parametrize(("is_live", "told"), [(True, "READY for"), (False, "READY?")])
def test_what_a_silent_host_said_last_is_marked_as_old(is_live: bool, told: str):
    engine = SimpleNamespace(
        id="m-0",
        host="h3",
        state=EngineState.READY,
        since=90.0,
        inflight=0,
        hold="",
        reason="",
        progress="",
        host_live=is_live,
    )
    found = Status(
        100.0,
        99.0,
        "",
        FleetStatus(),
        hosts=(),
        engines=(engine,),  # type: ignore[arg-type]
        workers=(),
        models=(),
        lost_hosts=("h3",),
        control=QueueStatus("control", 0, 0),
    )
    assert dict(describe_host(found, "h3", ()))["m-0"].startswith(told)
