"""Engines of one host that load the same files, one after another."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.values import EngineSpec, EngineState, Wish
from tests.support.launchers import HOST, Site, open_site, section
from tests.support.processes import ValkeyProcess, eventually


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Site]:
    os.mkfifo(tmp_path / "go")
    # The log begins with the command, which must not read as if it had loaded.
    loaded = 'what=weight; echo "Load $what end"; exec sleep 100'
    command = ["/bin/sh", "-c", f"read line < {tmp_path}/go; {loaded}"]
    slow = section("slow", command=command, path=str(tmp_path), load_in_turns=True)
    with open_site(tmp_path, valkey, slow) as site:
        yield site


def test_the_second_waits_until_the_first_has_loaded(site: Site) -> None:
    site.launch()
    site.want("slow")
    site.reaches("slow-0", EngineState.STARTING)
    site.wish("slow-1", Wish(EngineSpec("slow-1", "slow", HOST)))

    def waits() -> bool:
        waiting = site.reaches("slow-1", EngineState.PENDING)
        return waiting.reason == "waits for slow-0, which loads the same files"

    eventually(waits)
    (site.folder / "go").write_text("on\n")
    site.reaches("slow-1", EngineState.STARTING)
