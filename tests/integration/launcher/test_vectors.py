"""Engines whose vectors cannot be right never serve."""

from pathlib import Path

from modelserver.values import EngineState
from tests.support.launchers import open_site, section
from tests.support.processes import ValkeyProcess


def test_an_engine_whose_vectors_change_is_refused_in_words(
    valkey: ValkeyProcess, tmp_path: Path
) -> None:
    unsteady = section("unsteady", "--shape", "unsteady", kind="embedding")
    steady = section("steady", kind="embedding")
    with open_site(tmp_path, valkey, unsteady, steady) as site:
        site.launch()
        site.want("unsteady")
        site.want("steady")
        refused = site.reaches("unsteady-0", EngineState.FATAL)
        assert "gives one text different vectors before and after others" in (
            refused.reason
        )
        site.reaches("steady-0", EngineState.READY)
