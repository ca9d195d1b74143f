"""What is read from the pages of SGLang's and vLLM's metrics."""

import pytest

from launcher.engine.engine_metrics import MetricsReading, median_gap, read_metrics
from modelserver.engine_client import count_tokens

SGLANG = b"""\
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m",priority="",tp_rank="0"} 5.0
sglang:num_running_reqs{model_name="m",priority="3",tp_rank="0"} 5.0
sglang:num_queue_reqs{model_name="m",priority=""} 2.0
sglang:token_usage{model_name="m"} 0.25
sglang:num_retracted_reqs{model_name="m"} 1.0
sglang:num_retracted_requests_total{model_name="m"} 6.0
sglang:generation_tokens_total{model_name="m"} 40.0
sglang:realtime_tokens_total{mode="decode",model_name="m"} 50.0
sglang:inter_token_latency_seconds_sum{model_name="m"} 0.5
sglang:inter_token_latency_seconds_bucket{le="0.01",model_name="m"} 3.0
sglang:inter_token_latency_seconds_bucket{le="0.02",model_name="m"} 8.0
sglang:inter_token_latency_seconds_bucket{le="+Inf",model_name="m"} 9.0
"""
VLLM = b"""\
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.1
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.7
vllm:num_preemptions_total{engine="0"} 2.0
vllm:num_preemptions_total{engine="1"} 3.0
vllm:generation_tokens_total{engine="0",model_name="m"} 12.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.05"} 1.0
vllm:inter_token_latency_seconds_bucket{engine="1",le="0.05"} 2.0
vllm:inter_token_latency_seconds_created{engine="1"} 1.7e+09
"""
BOUNDS = (0.01, 0.02, 0.04, float("inf"))


def gaps(*counts: float) -> dict[float, float]:
    return dict(zip(BOUNDS, counts, strict=True))


def test_sglangs_requests_are_counted_once():
    infinity = float("inf")
    assert read_metrics(SGLANG) == MetricsReading(
        running=5,
        waiting=2,
        kv_use=0.25,
        retracted=6,
        tokens=90.0,
        gaps={0.01: 3.0, 0.02: 8.0, infinity: 9.0},
    )


def test_vllms_replicas_are_one_engine():
    found = read_metrics(VLLM)
    assert found == MetricsReading(7, 1, 0.7, 5, tokens=12.0, gaps={0.05: 3.0})
    assert found.requests == 8


@pytest.mark.parametrize("page", [b"", b"<html>404</html>", b"other:metric 1.0\n"])
def test_other_pages_say_nothing(page: bytes):
    assert read_metrics(page) is None


def test_the_median_is_that_of_the_time_between_two_looks():
    before = gaps(100, 100, 100, 100)
    assert median_gap(before, gaps(110, 110, 110, 110)) == pytest.approx(0.005)
    assert median_gap(before, gaps(100, 104, 108, 108)) == pytest.approx(0.02)
    assert median_gap(before, gaps(100, 100, 110, 110)) == pytest.approx(0.03)


def test_without_new_tokens_the_median_is_unknown():
    assert median_gap({}, {}) == 0.0
    assert median_gap(gaps(1, 2, 3, 4), gaps(1, 2, 3, 4)) == 0.0


def test_an_engine_that_counts_anew_says_nothing_at_first():
    assert median_gap(gaps(5, 6, 7, 8), gaps(0, 0, 9, 9)) == 0.0


def test_beyond_the_last_bound_the_median_is_that_bound():
    assert median_gap({}, gaps(0, 0, 1, 10)) == 0.04


def test_vllm_counts_tokens_that_it_reads():
    pooling = b"""\
vllm:generation_tokens_total{engine="0"} 0.0
vllm:prompt_tokens_total{engine="0"} %d.0
"""
    assert count_tokens(pooling % 300) == 300


def test_a_counter_that_has_never_moved_is_none():
    assert count_tokens(b'vllm:generation_tokens_total{engine="0"} 0.0\n') is None
