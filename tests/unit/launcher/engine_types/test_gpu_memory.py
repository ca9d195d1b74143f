"""The share of a GPU's memory that an engine is told to take."""

import pytest

from launcher.engine_types import Place
from launcher.engine_types.gpu_memory import sglang_fraction, vllm_fraction
from modelserver.errors import ConfigurationError
from modelserver.inventory import GIB


def place(free: float, promised: float = 0, total: float = 80) -> Place:
    return Place(
        1,
        free_bytes=int(free * GIB),
        total_bytes=int(total * GIB),
        promised_bytes=int(promised * GIB),
    )


def test_sglang_takes_a_share_of_what_is_free_whatever_others_hold() -> None:
    assert sglang_fraction(place(free=80)) == 0.88
    assert sglang_fraction(place(free=70)) == 0.88


def test_sglang_keeps_to_its_promise() -> None:
    assert sglang_fraction(place(free=80, promised=40)) == 0.44
    assert sglang_fraction(place(free=50, promised=40)) == 0.704


def test_vllm_takes_a_share_of_the_total_that_is_free() -> None:
    assert vllm_fraction(place(free=80)) == 0.92
    assert vllm_fraction(place(free=70)) == 0.805
    assert vllm_fraction(place(free=70, promised=40)) == 0.46


def test_a_small_promise_leaves_two_gib_for_the_context() -> None:
    assert sglang_fraction(place(free=80, promised=4)) == 0.025
    assert vllm_fraction(place(free=80, promised=4)) == 0.025


@pytest.mark.parametrize("fraction", [sglang_fraction, vllm_fraction])
def test_without_figures_the_gpu_is_taken_for_free(fraction) -> None:
    assert 0.85 < fraction(Place(1)) < 0.95


@pytest.mark.parametrize("fraction", [sglang_fraction, vllm_fraction])
def test_too_little_is_refused_with_the_figures(fraction) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        fraction(place(free=80, promised=2))
    assert str(refusal.value) == (
        "2 GiB of a GPU are too little for an engine, which needs 2.5 GiB and its "
        "weights; raise the model's gpu_memory_gib"
    )


@pytest.mark.parametrize("free", [3, 10, 40, 80])
@pytest.mark.parametrize("promised", [0, 3, 20, 79])
def test_neither_exceeds_what_is_free_or_promised(free: int, promised: int) -> None:
    here = place(free, promised)
    most = min(free, promised or free)
    assert sglang_fraction(here) * free < most
    assert vllm_fraction(here) * 80 < most
