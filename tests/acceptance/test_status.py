"""What operators ask of the real fleet, while requests run."""

import json
import math
from typing import Any

import pytest

from tests.acceptance.product import CHAT, EMBED, PATIENCE, Product
from tests.support.processes import eventually
from tests.support.workers import answers

pytestmark = pytest.mark.sglang


def asked(fleet: Product, *arguments: str) -> Any:
    return json.loads(fleet.command(*arguments, "--json"))


def test_status_shows_the_fleet_at_work(fleet: Product) -> None:
    answers(fleet.send(8, max_tokens=8), PATIENCE)
    busy = fleet.send(200, max_tokens=600)

    def at_work() -> Any:
        found = asked(fleet, "status")
        engines = {engine["id"]: engine for engine in found["engines"]}
        assert engines[CHAT]["inflight"] > 0
        return found

    found = eventually(at_work, PATIENCE)
    fleet.give_up(busy)
    assert list(found) == [
        "at",
        "steered_at",
        "steered_by",
        "fleet",
        "models",
        "engines",
        "hosts",
        "workers",
        "control",
        "lost_hosts",
        "orders",
        "alerts",
        "memory_short",
        "runs",
    ]
    assert 0 <= found["at"] - found["steered_at"] < PATIENCE
    models = {model["name"]: model for model in found["models"]}
    assert [models[name]["kind"] for name in ("tiny-chat", "tiny-embed")] == [
        "completion",
        "embedding",
    ]
    for model in models.values():
        assert (model["ready"], model["wanted"]) == (1, 1)
        assert model["queue"]["workers"] == 1
    assert models["tiny-chat"]["queue"]["backlog"] > 0
    for name, engine in {engine["id"]: engine for engine in found["engines"]}.items():
        # Control may find it slow where this machine is.
        assert engine["state"] in ("READY", "DEGRADED"), name
        assert engine["host_live"]
        # Control may have lowered it where this machine is slow.
        assert engine["inflight"] <= 64
        assert 1 <= engine["limit"] <= 64
        assert engine["url"].startswith("http://127.0.0.1:")
    chat = next(engine for engine in found["engines"] if engine["id"] == CHAT)
    assert chat["requests"] >= 8
    assert 0 < chat["traffic"]["p50_seconds"] <= chat["traffic"]["p95_seconds"]
    assert chat["traffic"]["tokens_per_second"] > 0
    (host,), (worker,) = found["hosts"], found["workers"]
    assert (host["name"], host["gpus"]) == (fleet.settings.host, [])
    assert worker["models"] == ["tiny-chat", "tiny-embed"]
    assert worker["inflight"] > 0


def test_models_says_what_can_be_asked(fleet: Product) -> None:
    found = {model["name"]: model["ready"] for model in asked(fleet, "models")}
    assert found == {"tiny-chat": 1, "tiny-embed": 1}
    assert "tiny-embed" in fleet.command("models")


def test_latency_has_every_engine_answer_the_benchmark_message(fleet: Product) -> None:
    found = {probe["engine"]: probe for probe in asked(fleet, "latency")}
    assert set(found) == {CHAT, EMBED}
    for probe in found.values():
        assert not probe["error"]
        assert 0 < probe["seconds"] < math.inf
    assert found[CHAT]["answer"]


def test_fastest_names_the_engine_that_answers_first(fleet: Product) -> None:
    found = asked(fleet, "fastest", "tiny-chat")
    assert found["engine"] == CHAT
    assert found["url"] == fleet.engine().url
    assert fleet.command("fastest", "tiny-embed").startswith(f"{EMBED} http://")
