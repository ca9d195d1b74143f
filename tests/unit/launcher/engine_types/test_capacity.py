"""How many requests engines take at once, where their model does not say."""

import json
from dataclasses import replace

import pytest

from launcher.engine.report import engine_report, with_wish
from launcher.engine_types import Place, adapter
from modelserver.fleet.file import make_fleet
from modelserver.inventory import GIB
from modelserver.policy.lifecycle import Life
from modelserver.values import EngineSpec, Kind, ModelSpec, Wish
from tests.support.launches import HOME, PYTHON, on_gpus

#: As vLLM 0.32 writes it, but for labels that say nothing here.
VLLM_PAGE = b"""\
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",engine="0",kv_cache_size_tokens="None",\
num_gpu_blocks="12000"} 1.0
vllm:cache_config_info{block_size="16",engine="1",kv_cache_size_tokens="192000",\
num_gpu_blocks="None"} 1.0
"""


def sglang_page(running: int, tokens: int, replicas: int = 1) -> bytes:
    """As much as is read of what SGLang 0.5.23 tells of itself."""
    state = {"effective_max_running_requests_per_dp": running}
    info = {"max_total_num_tokens": tokens, "internal_states": [state] * replicas}
    return json.dumps({"max_running_requests": None, **info}).encode()


@pytest.mark.parametrize(
    ("page", "kind", "capacity"),
    [
        (sglang_page(2048, 400_000), Kind.COMPLETION, 1562),
        (sglang_page(128, 400_000), Kind.COMPLETION, 128),
        (sglang_page(128, 400_000, 2), Kind.COMPLETION, 256),
        (sglang_page(2048, 100), Kind.COMPLETION, 1),
        (sglang_page(2048, 400_000), Kind.EMBEDDING, 256),
        (b'{"internal_states": []}', Kind.COMPLETION, 0),
        (b"<html>404</html>", Kind.COMPLETION, 0),
        (b"[]", Kind.COMPLETION, 0),
    ],
)
def test_sglang_tells_what_it_takes(page: bytes, kind: Kind, capacity: int):
    assert adapter("sglang").capacity(page, 0, kind) == capacity


def test_vllm_takes_what_it_was_told_if_its_cache_holds_it():
    capacity = adapter("vllm").capacity
    assert capacity(VLLM_PAGE, 1024, Kind.COMPLETION) == 1024
    assert capacity(VLLM_PAGE, 2048, Kind.COMPLETION) == 1500
    assert capacity(b"", 1024, Kind.COMPLETION) == 1024
    assert capacity(VLLM_PAGE, 1024, Kind.EMBEDDING) == 256


def test_left_out_it_is_sglangs_own():
    assert "--max-running-requests" not in on_gpus("sglang", max_running=0).argv
    assert on_gpus("sglang", max_running=0).running == 0


def test_left_out_it_is_said_to_vllm_as_vllm_would_have_it():
    launch = on_gpus("vllm", max_running=0, data_parallel=2)
    at = launch.argv.index("--max-num-seqs")
    assert (launch.argv[at + 1], launch.running) == ("1024", 2048)
    small = Place(1, (0,), free_bytes=24 * GIB, total_bytes=24 * GIB)
    model = ModelSpec(
        *("m", Kind.COMPLETION, "/m", "vllm"), max_running=0, interpreter=PYTHON
    )
    assert adapter("vllm").launch(model, small, HOME).running == 256


@pytest.mark.parametrize(
    ("engine", "gpus", "most"),
    [("sglang", 1, 0), ("vllm", 1, 0), ("sglang-cpu", 0, 64), ("vllm-cpu", 0, 64)],
)
def test_only_gpus_are_left_to_the_engine(engine: str, gpus: int, most: int):
    model = {"name": "m", "engine": engine, "gpus": gpus, "path": "/m"}
    (spec,) = make_fleet("f", {"models": [model]}).specs()
    assert spec.max_running == most
    (spec,) = make_fleet("f", {"models": [model | {"max_running": 7}]}).specs()
    assert spec.max_running == 7


def test_an_engines_limit_is_what_it_takes_and_64_before_that_is_known():
    model = ModelSpec("m", Kind.COMPLETION, "/m", "sglang", max_running=0)
    spec = EngineSpec("m-0", "m", "a")
    told = engine_report(spec, model, "a", Life(since=0.0), None)
    assert with_wish(told, Wish(spec), model).limit == 64
    told = replace(told, capacity=700)
    assert with_wish(told, Wish(spec), model).limit == 700
    assert with_wish(told, Wish(spec, limit=630), model).limit == 630
