"""The docs tell every field of ``modelserver status --json``."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from modelserver.inventory import Disk, Gpu, GpuProcess, Host
from modelserver.operations.hosted_runs import RunsStatus
from modelserver.operations.status import (
    EngineStatus,
    FleetStatus,
    ModelStatus,
    QueueStatus,
    Status,
    WorkerStatus,
)
from modelserver.operations.traffic import Traffic
from modelserver.values import NodeReport, Order

PAGE = Path(__file__).resolve().parents[3] / "docs/operating.md"
SHOWN = (
    *(Status, FleetStatus, ModelStatus, QueueStatus, EngineStatus, Traffic),
    *(WorkerStatus, RunsStatus, Order, Host, Disk, Gpu, GpuProcess),
)


@pytest.mark.parametrize("kind", SHOWN)
def test_every_field_is_told(kind: Any):
    assert is_dataclass(kind)
    text = PAGE.read_text().partition("`modelserver status --json`\n")[2]
    text = text.partition("\n## ")[0]
    told = set(re.findall(r"\w+", " ".join(re.findall(r"`([\w.]+)`", text))))
    assert {each.name for each in fields(kind)} - told == set()


def test_every_field_of_a_node_but_its_engine_is_told():
    told = PAGE.read_text()
    names = {each.name for each in fields(NodeReport)} - {"engine"}
    assert {name for name in names if f"`{name}`" not in told} == set()
