"""Single texts that go to the engine together."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from modelserver.engine_protocol import EngineFault, RequestFault
from modelserver.messaging.answers import UnsoundVectorsError
from workers.requests.coalescer import (
    ENOUGH_UNDER_WAY,
    GATHER_SECONDS,
    MOST_TEXTS,
    Coalescer,
)


class Asked:
    """Stands where the HTTP call stands, and keeps what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[Mapping[str, Any]] = []
        self.vectors_missing = 0
        self.fault: Exception | None = None

    async def __call__(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        content = body["input"]
        texts = [content] if isinstance(content, str) else content
        if self.fault:
            raise self.fault
        if any("bad" in text for text in texts):
            raise RequestFault("a bad text")
        data = [{"index": i, "embedding": [text]} for i, text in enumerate(texts)]
        # In another order than asked, as an engine may.
        data = data[: len(data) - self.vectors_missing][::-1]
        return {"data": data, "usage": {"prompt_tokens": 10 * len(texts)}}


def embed_all(
    asked: Asked, texts: list[str], **fields: str
) -> list[dict[str, Any] | BaseException]:
    async def all_of_them() -> list[dict[str, Any] | BaseException]:
        coalescer = Coalescer()
        waits: list[Coroutine[Any, Any, dict[str, Any]]] = [
            coalescer.embed("e0", {"model": "m", "input": text, **fields}, asked)
            for text in texts
        ]
        return await asyncio.gather(*waits, return_exceptions=True)

    return asyncio.run(all_of_them())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


def vectors(responses: list[Any]) -> list[Any]:
    return [response["data"][0]["embedding"][0] for response in responses]


def test_texts_that_wait_together_are_one_request():
    asked = Asked()
    responses = embed_all(asked, ["a", "b", "c"])
    assert vectors(responses) == ["a", "b", "c"]
    assert [body["input"] for body in asked.bodies] == [["a", "b", "c"]]


def test_a_lone_text_is_asked_as_it_is():
    asked = Asked()
    assert vectors(embed_all(asked, ["a"])) == ["a"]
    assert asked.bodies == [{"model": "m", "input": "a"}]


def test_a_request_has_a_bound():
    asked = Asked()
    texts = [f"t{i}" for i in range(MOST_TEXTS + 3)]
    assert vectors(embed_all(asked, texts)) == texts
    assert sorted(len(body["input"]) for body in asked.bodies) == [3, MOST_TEXTS]


def test_one_bad_text_fails_alone():
    asked = Asked()
    good, bad, other = embed_all(asked, ["a", "bad", "c"])
    assert vectors([good, other]) == ["a", "c"]
    assert isinstance(bad, RequestFault)


def test_a_fault_of_the_engine_reaches_all():
    asked = Asked()
    asked.fault = EngineFault("gone")
    assert all(isinstance(each, EngineFault) for each in embed_all(asked, ["a", "b"]))


def test_too_few_vectors_are_a_fault_of_the_engine():
    asked = Asked()
    asked.vectors_missing = 1
    assert all(isinstance(each, EngineFault) for each in embed_all(asked, ["a", "b"]))


def test_tokens_are_shared_out_by_length():
    responses: list[Any] = embed_all(Asked(), ["aaa", "b"])
    assert [response["usage"]["prompt_tokens"] for response in responses] == [15, 5]


def test_other_parameters_go_apart():
    asked = Asked()

    async def two() -> None:
        coalescer = Coalescer()
        await asyncio.gather(
            coalescer.embed("e0", {"model": "m", "input": "a", "user": "x"}, asked),
            coalescer.embed("e0", {"model": "m", "input": "b", "user": "y"}, asked),
            coalescer.embed("e1", {"model": "m", "input": "c", "user": "x"}, asked),
        )

    asyncio.run(two())
    assert sorted(body["input"] for body in asked.bodies) == ["a", "b", "c"]


def test_who_gave_up_is_not_asked_for():
    asked = Asked()

    async def one_gives_up() -> dict[str, Any]:
        coalescer = Coalescer()
        body = {"model": "m", "input": "given up"}
        leaving = asyncio.create_task(coalescer.embed("e0", body, asked))
        staying = asyncio.create_task(
            coalescer.embed("e0", {"model": "m", "input": "kept"}, asked)
        )
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        return await staying

    assert vectors([asyncio.run(one_gives_up())]) == ["kept"]
    assert [body["input"] for body in asked.bodies] == ["kept"]


def test_texts_collect_while_the_engine_has_enough_to_do():
    asked = Asked()
    ends = asyncio.Event()

    async def slow(body: Mapping[str, Any]) -> dict[str, Any]:
        response = await asked(body)
        await ends.wait()
        return response

    async def in_turns() -> list[dict[str, Any]]:
        coalescer = Coalescer()
        waits = []
        for turn in range(ENOUGH_UNDER_WAY + 3):
            body = {"model": "m", "input": f"t{turn}"}
            waits.append(asyncio.create_task(coalescer.embed("e0", body, slow)))
            if turn < ENOUGH_UNDER_WAY:
                await until(lambda turn=turn: len(asked.bodies) > turn)
        await asyncio.sleep(2 * GATHER_SECONDS)
        ends.set()
        return await asyncio.gather(*waits)

    got = vectors(asyncio.run(in_turns()))
    assert got == [f"t{turn}" for turn in range(ENOUGH_UNDER_WAY + 3)]
    sizes = [body["input"] for body in asked.bodies]
    assert sizes == ["t0", "t1", "t2", ["t3", "t4", "t5"]]


def test_a_lone_bad_text_is_asked_once():
    asked = Asked()
    (refused,) = embed_all(asked, ["bad"])
    assert isinstance(refused, RequestFault)
    assert len(asked.bodies) == 1


def test_a_request_that_nobody_waits_for_any_longer_is_ended():
    async def given_up() -> bool:
        asked, ended = asyncio.Event(), asyncio.Event()

        async def never(body: Mapping[str, Any]) -> dict[str, Any]:
            asked.set()
            try:
                return await asyncio.Future()
            finally:
                ended.set()

        coalescer = Coalescer()
        waits = [
            asyncio.create_task(coalescer.embed("e0", {"input": text}, never))
            for text in ("one", "two")
        ]
        await asked.wait()
        waits[0].cancel()
        await asyncio.gather(waits[0], return_exceptions=True)
        early = ended.is_set()
        waits[1].cancel()
        await asyncio.gather(waits[1], return_exceptions=True)
        await ended.wait()
        return not early

    assert asyncio.run(given_up())


@pytest.mark.parametrize(
    ("fault", "asked"),
    [
        (EngineFault("status 500", way="status 500"), ["a", "b"]),
        (EngineFault("connection reset"), []),
    ],
)
def test_a_group_that_the_engine_fails_at_is_asked_one_by_one(
    fault: EngineFault, asked: list[str]
):
    engine = Asked()
    engine.fault = fault
    assert all(isinstance(each, EngineFault) for each in embed_all(engine, ["a", "b"]))
    assert [body["input"] for body in engine.bodies] == [["a", "b"], *asked]


def answered_with(entries: list[Any], texts: list[str], **more: Any) -> list[Any]:
    async def ask(body: Mapping[str, Any]) -> dict[str, Any]:
        return {"data": entries, **more}

    async def all_of_them() -> list[Any]:
        coalescer = Coalescer()
        waits = [coalescer.embed("e0", {"input": text}, ask) for text in texts]
        return await asyncio.gather(*waits, return_exceptions=True)

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("entry", [None, 5, {"index": 1}, {"embedding": None}], ids=str)
def test_one_bad_entry_leaves_the_others_alone(entry: Any):
    good = {"index": None, "embedding": [0.5, 0.5]}
    first, bad, last = answered_with([good, entry, good], ["a", "b", "c"])
    assert first["data"][0]["embedding"] == last["data"][0]["embedding"] == [0.5, 0.5]
    assert len(bad["data"]) == 1


def test_a_vector_of_another_length_fails_alone():
    entries = [{"index": i, "embedding": [0.5] * n} for i, n in enumerate((1, 2, 2))]
    odd, *others = answered_with(entries, ["a", "b", "c"])
    assert isinstance(odd, UnsoundVectorsError)
    assert [len(each["data"][0]["embedding"]) for each in others] == [2, 2]


@pytest.mark.parametrize("usage", [None, [], 5, {"prompt_tokens": "9"}], ids=str)
def test_a_strange_usage_counts_nothing(usage: Any):
    entries = [{"index": i, "embedding": [0.5]} for i in range(2)]
    one, _ = answered_with(entries, ["a", "b"], usage=usage)
    assert one["usage"] == {"prompt_tokens": 0}
