"""Real SGLang and real vLLM beside each other, each by its own adapter."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import redis

from launcher import environments
from launcher.engine_types import adapter
from launcher.host.process import MARK
from modelserver.engine_client import generated_tokens, open_session, prove
from modelserver.runs.mapping import map_prompts
from modelserver.values import Kind
from tests.acceptance.bad_requests import BAD_REQUESTS, refusal
from tests.acceptance.both_engines import FLEET
from tests.acceptance.matrix import MATRIX, check_same
from tests.acceptance.product import EXACT, PATIENCE, Product
from tests.acceptance.shorter_vectors import check_shorter, cosine
from tests.support.processes import carriers, eventually

LORA_ADAPTER = Path(__file__).with_name("lora_adapter.py")
ENCODERS = Path(__file__).with_name("encoders.py")
pytestmark = [pytest.mark.sglang, pytest.mark.vllm]

NAMES = ("vllm-chat", "vllm-embed", "sglang-chat", "sglang-embed")
VLLM, VECTORS, SGLANG, ENCODER = ENGINES = tuple(f"{name}-0" for name in NAMES)
#: Texts of up to 100 tokens, of which many begin alike.
TEXTS = [
    f"{word} {'the road ' * (place % 9)}{place}"
    for place in range(67)
    for word in ("lighthouse", "keeper", "lamp")
]
ONCE = "Once upon a time"
SHORT = EXACT | {"max_tokens": 8}


@pytest.fixture(scope="module")
def encoders(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two encoders and an adapter, and of what they should answer."""
    folder = tmp_path_factory.mktemp("encoders")
    done = subprocess.run(
        [environments.interpreter("sglang-cpu", home), ENCODERS, folder],
        input=json.dumps(TEXTS),
        env=os.environ | {"PYTHONPATH": str(environments.standins_path())},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / "vectors.json").write_text(done.stdout.splitlines()[-1])
    python = environments.interpreter("sglang-cpu", home)
    environments.ensure_tiny_models(python, home / "models")
    done = subprocess.run(
        [python, LORA_ADAPTER, home / "models/tiny-chat", folder / "style", ONCE, "8"],
        env=os.environ | {"PYTHONPATH": str(environments.standins_path())},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / "style.json").write_text(done.stdout.splitlines()[-1])
    return folder


@pytest.fixture(scope="module")
def fleet(
    home_with_vllm: Path, encoders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Product]:
    """``modelserver up`` with engines of both kinds."""
    folder = tmp_path_factory.mktemp("both")
    text = FLEET.format(encoders=encoders)
    product = Product(folder, home_with_vllm, text, ENGINES)
    try:
        product.await_ready()
        yield product
    finally:
        product.close()


@pytest.mark.parametrize("engine", ["sglang-cpu", "vllm-cpu"])
def test_the_first_start_writes_the_tiny_models(
    engine: str, home_with_vllm: Path, tmp_path: Path
) -> None:
    python = environments.interpreter(engine, home_with_vllm)
    environments.ensure_tiny_models(python, tmp_path)
    for name in ("tiny-chat", "tiny-embed"):
        assert (tmp_path / name / "model.safetensors").stat().st_size > 1_000_000


@pytest.mark.parametrize("model", ["vllm-chat", "sglang-chat"])
def test_both_complete_and_chat(fleet: Product, model: str) -> None:
    found = fleet.complete.delay("Once", model=model, raw=True, **SHORT).get(PATIENCE)
    assert found["engine"] == f"{model}-0"
    assert found["usage"]["completion_tokens"] == 8
    messages = [{"role": "user", "content": "hello"}]
    assert fleet.chat.delay(messages, model=model, **SHORT).get(PATIENCE)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_an_adapter_answers_by_its_name(
    fleet: Product, encoders: Path, engine: str
) -> None:
    def ask(model: str) -> Any:
        asked = fleet.complete.delay(ONCE, model=model, raw=True, **SHORT)
        return asked.get(PATIENCE)

    base, style = ask(f"{engine}-chat"), ask(f"{engine}-style")
    # As the model says it whose weights have the adapter's in them.
    told = json.loads((encoders / "style.json").read_text())
    assert style["choices"][0]["text"] == told
    assert base["choices"][0]["text"] != told
    asked = {"model": f"{engine}-style", "app": fleet.app, "progress": False}
    assert [each.text for each in map_prompts([ONCE], **asked, **SHORT)] == [told]
    assert (style["model"], style["engine"]) == (f"{engine}-style", f"{engine}-chat-0")
    with urllib.request.urlopen(f"{fleet.api_url}/models", timeout=PATIENCE) as got:
        names = [each["id"] for each in json.load(got)["data"]]
    assert f"{engine}-style" in names


@pytest.mark.parametrize(("path", "asked", "stream"), MATRIX)
def test_an_answer_through_the_gateway_is_vllms_own(
    fleet: Product, path: str, asked: dict[str, Any], stream: bool
) -> None:
    check_same(fleet, "vllm-chat", path, asked, stream)


def test_both_give_the_same_text_at_temperature_0(fleet: Product) -> None:
    asked = [
        fleet.complete.delay(ONCE, model=model, **SHORT)
        for model in ("vllm-chat", "sglang-chat")
    ]
    one, other = [result.get(PATIENCE) for result in asked]
    assert one == other


def test_vllm_embeds(fleet: Product) -> None:
    vectors = fleet.embed.delay(["a sentence", "another"]).get(PATIENCE)
    assert [len(vector) for vector in vectors] == [128, 128]
    assert vectors[0] != vectors[1]
    alone = fleet.embed.delay("a sentence").get(PATIENCE)
    assert alone == pytest.approx(vectors[0], abs=1e-4)


@pytest.mark.parametrize(
    ("model", "pooling"), [("vllm-embed", "mean"), ("sglang-embed", "cls")]
)
def test_an_encoders_vectors_are_its_own_alone_and_among_others(
    fleet: Product, encoders: Path, model: str, pooling: str
) -> None:
    right = json.loads((encoders / "vectors.json").read_text())[pooling]
    alone = fleet.embed.delay(TEXTS[100], model=model).get(PATIENCE)
    assert cosine(alone, right[100]) >= 0.999
    together = fleet.embed.delay(TEXTS, model=model).get(PATIENCE)
    assert len(together) == 201
    assert min(map(cosine, together, right)) >= 0.999
    again = fleet.embed.delay(TEXTS[100], model=model).get(PATIENCE)
    assert cosine(again, right[100]) >= 0.999


@pytest.mark.parametrize("model", ["vllm-embed", "sglang-embed"])
def test_shorter_vectors_are_the_beginnings_of_the_whole_ones(
    fleet: Product, model: str
) -> None:
    check_shorter(fleet, model, TEXTS[:32])


@pytest.mark.parametrize("name", [VLLM, VECTORS, SGLANG])
def test_each_proves_itself_and_counts_its_tokens(fleet: Product, name: str) -> None:
    kind = Kind.EMBEDDING if name == VECTORS else Kind.COMPLETION
    url, model = fleet.engine(name).url, name.removesuffix("-0")

    async def measure() -> tuple[float | None, float, float | None]:
        async with open_session(keys=fleet.settings.keyring()) as session:
            before = await generated_tokens(session, url)
            seconds = await prove(session, url, model, kind, PATIENCE)
            return before, seconds, await generated_tokens(session, url)

    before, seconds, after = asyncio.run(measure())
    assert before is not None
    assert after is not None
    assert 0 < seconds < PATIENCE
    # Of an embedding engine the tokens of its prompts count.
    assert after > before


def test_no_key_stands_where_others_could_read_it(fleet: Product) -> None:
    keys = [fleet.key(name) for name in (VLLM, VECTORS, SGLANG)]
    keys += secrets(fleet)
    assert len(set(keys)) == 5
    places = {**command_lines(), **logs(fleet), **stored(fleet)}
    assert any("--served-model-name" in text for text in places.values())
    found = {place for place, text in places.items() for key in keys if key in text}
    assert found == set()


def test_engines_have_no_secret_but_their_own_key(fleet: Product) -> None:
    fleets = {fleet.key(name) for name in ENGINES} | set(secrets(fleet))
    for name in ENGINES:
        for process in engine_processes(fleet, name):
            given = process.environ()
            text = repr(given)
            assert [each for each in fleets if each in text] == [fleet.key(name)]
            ours = [each for each in given if each.startswith("MODELSERVER_")]
            assert all(each.startswith("MODELSERVER_ENGINE_") for each in ours)


def secrets(fleet: Product) -> list[str]:
    """The fleet's key, and the password of its server."""
    password = urlsplit(fleet.settings.redis_url).password
    assert password
    return [fleet.settings.fleet_key.read(), password]


def test_who_does_not_have_the_key_is_refused(fleet: Product) -> None:
    for name in (VLLM, SGLANG):
        assert fleet.status_without_key(name) == 401


@pytest.mark.parametrize(
    ("name", "path"), [(VLLM, "/metrics"), (SGLANG, "/server_info")]
)
def test_each_tells_how_many_requests_it_takes(
    fleet: Product, name: str, path: str
) -> None:
    url = fleet.engine(name).url

    async def read() -> bytes:
        async with (
            open_session(keys=fleet.settings.keyring()) as session,
            session.get(url + path) as response,
        ):
            return await response.read()

    page = asyncio.run(read())
    engine = adapter(name.partition("-")[0])
    assert engine.capacity_path == path
    # The CPU's engines are told 64; vLLM's cache of 1 GiB holds more of these.
    assert engine.capacity(page, 64, Kind.COMPLETION) == 64


def test_nothing_listens_beyond_loopback(fleet: Product) -> None:
    engines = {name: engine_processes(fleet, name) for name in ENGINES}
    own = psutil.Process(fleet.process.pid).children(recursive=True)
    for name, processes in (engines | {"up": own}).items():
        listening = [
            each.laddr.ip
            for process in processes
            for each in process.net_connections(kind="inet")
            if each.status == psutil.CONN_LISTEN
        ]
        assert listening, name
        assert set(listening) <= {"127.0.0.1", "::1"}, name


def engine_processes(fleet: Product, name: str) -> list[psutil.Process]:
    head = psutil.Process(fleet.engine(name).pid)
    return carriers(MARK, head.environ()[MARK])


def command_lines() -> dict[str, str]:
    """What every user of this host can see of its processes."""
    found = {}
    for process in psutil.process_iter(["cmdline", "name"]):
        words = [process.info["name"] or "", *(process.info["cmdline"] or [])]
        found[f"process {process.pid}"] = " ".join(words)
    return found


def logs(fleet: Product) -> dict[str, str]:
    """Every log of the fleet, and what ``up`` has printed."""
    folder = fleet.settings.run_dir / "logs"
    files = {str(path): path.read_text() for path in folder.rglob("*.log*")}
    assert len(files) > 5
    return files | {"up": fleet.said()}


def stored(fleet: Product) -> dict[str, str]:
    """Every key and value of the server."""
    client: Any = redis.Redis.from_url(fleet.settings.redis_url)
    found = {}
    with client:
        for key in client.scan_iter(count=1000):
            found[f"redis {key}"] = f"{key} {unpacked(read(client, key))!r}"
    assert found
    return found


def unpacked(value: Any) -> Any:
    """A value with what is deflated in it inflated."""
    match value:
        case bytes():
            with contextlib.suppress(zlib.error):
                return zlib.decompress(value)
            return value
        case dict():
            return {unpacked(key): unpacked(each) for key, each in value.items()}
        case list() | tuple() | set():
            return [unpacked(each) for each in value]
    return value


def read(client: Any, key: Any) -> Any:
    """A value by its type: a dump may be compressed."""
    match client.type(key):
        case b"hash":
            return client.hgetall(key)
        case b"list":
            return client.lrange(key, 0, -1)
        case b"set":
            return client.smembers(key)
        case b"zset":
            return client.zrange(key, 0, -1)
        case b"stream":
            return client.xrange(key)
        case _:
            return client.get(key)


# vLLM leaves roles to the model's template, which takes any.
@pytest.mark.parametrize(
    "name", sorted(BAD_REQUESTS.keys() - {"a role that does not exist"})
)
def test_vllm_refuses_bad_requests_in_words(fleet: Product, name: str) -> None:
    assert "in the same way" not in refusal(fleet, "vllm-chat", name)


def test_a_stop_text_that_comes_first_leaves_an_empty_text(fleet: Product) -> None:
    asked = EXACT | {"max_tokens": 24, "model": "vllm-chat"}
    text = fleet.complete.delay(ONCE, **asked).get(PATIENCE)
    again = fleet.complete.delay(ONCE, stop=[text[:12]], **asked)
    assert again.get(PATIENCE) == ""


# Last: these end an engine.


def test_an_engine_of_vllm_that_dies_leaves_no_process(fleet: Product) -> None:
    engine = fleet.engine(VLLM)
    head = psutil.Process(engine.pid)
    mark = head.environ()[MARK]
    family = carriers(MARK, mark)
    assert len(family) > 1, "vLLM's core is a process of its own"
    old = fleet.key(VLLM)
    head.send_signal(signal.SIGKILL)
    eventually(lambda: fleet.is_ready(engine.incarnation + 1, VLLM), 180)
    assert carriers(MARK, mark) == []
    assert not any(process.is_running() for process in family)
    assert fleet.key(VLLM) != old, "each start has a key of its own"
    # The worker knew the old one.
    again = fleet.complete.delay("Once", model="vllm-chat", **SHORT)
    assert again.get(PATIENCE)


def test_vllm_finishes_what_it_has_when_it_is_asked_to_end(fleet: Product) -> None:
    engine = fleet.engine(VLLM)
    # It has 3 s to finish it, on a machine that may be busy.
    body = EXACT | {"model": "vllm-chat", "prompt": "Long", "max_tokens": 100}
    request = urllib.request.Request(
        f"{fleet.api_url}/completions",
        json.dumps(body | {"stream": True}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as stream:
        assert stream.readline().startswith(b"data: ")  # It is under way.
        psutil.Process(engine.pid).send_signal(signal.SIGTERM)
        assert stream.read().endswith(b"data: [DONE]\n\n")
    assert not fleet.is_ready(engine.incarnation + 1, VLLM), "the next one answered"
    eventually(lambda: fleet.is_ready(engine.incarnation + 1, VLLM), 180)
