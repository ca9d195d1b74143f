"""What a fleet file may say, and what it is told when it may not."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from modelserver.adapters import LoraAdapter
from modelserver.errors import ConfigurationError, StoreUnreachableError
from modelserver.fleet.file import read_fleet
from modelserver.settings import Settings, load

MODEL = """
[[models]]
name = "qwen"
path = "Qwen/Qwen3-8B"
engine = "sglang"
gpus = 1
"""
EXTERNAL = '[[models]]\nname = "far"\nengine = "external"\n'


def read(folder: Path, text: str, **environ: str) -> Settings:
    (folder / "fleet.toml").write_text(text)
    return load({"MODELSERVER_HOME": str(folder), **environ}, cwd=folder)


def test_a_sound_file_gives_plain_values(tmp_path: Path):
    pin = '[[engines]]\nmodel = "qwen"\nhost = "a"\ngpus = [{0}]\nport = 800{0}\n'
    fleet = read(tmp_path, MODEL + pin.format(1) + pin.format(2)).fleet
    assert [(pin.id, pin.gpus, pin.port) for pin in fleet.pins()] == [
        ("qwen-0", (1,), 8001),
        ("qwen-1", (2,), 8002),
    ]
    (spec,) = fleet.specs()
    assert (spec.name, spec.gpus, spec.max_engines) == ("qwen", 1, 1)


PORT = '[[engines]]\nmodel = "qwen"\nhost = "a"\nport = 8001\n'
WRONG = {
    "a key in the open": (
        MODEL + 'extra_args = ["--api-key=x"]',
        "extra_args must not hold --api-key",
    ),
    "an address of its own": (
        MODEL + 'extra_args = ["--ho", "0.0.0.0"]',
        "extra_args must not hold --ho: engines listen on 127.0.0.1",
    ),
    "GPUs of its own": (
        MODEL + 'environment = { CUDA_VISIBLE_DEVICES = "0" }',
        "environment must not hold CUDA_VISIBLE_DEVICES",
    ),
    "a host that is not listed": (
        MODEL + 'hosts = ["gpu1"]\n[[hosts]]\nname = "gpu-1"',
        'model "qwen" names host "gpu1", which is not there; did you mean "gpu-1"?',
    ),
    "a pin beside its model's hosts": (
        MODEL + 'hosts = ["b"]\n' + PORT,
        'names host "a", which is not among that model\'s hosts; they are b',
    ),
    "hosts of what somebody else runs": (
        '[[models]]\nname = "m"\nengine = "external"\nhosts = ["a"]',
        'engine "external" is placed by host in [[engines]]; leave hosts out',
    ),
    "a kind of GPU without GPUs": (
        '[[models]]\nname = "m"\npath = "/m"\nengine = "sglang-cpu"\ngpu_name = "L4"',
        "gpu_name is about GPUs, and the model has none; leave it out",
    ),
    "an address of one engine's own": (
        MODEL + PORT + 'extra_args = ["--host", "0.0.0.0"]',
        "engines[0]: extra_args must not hold --host",
    ),
    "arguments of what somebody else runs": (
        '[[models]]\nname = "m"\nengine = "external"\n[[engines]]\nmodel = "m"\n'
        'url = "http://a:1"\nextra_args = ["-x"]',
        'an engine of "m" is run by somebody else; leave its extra_args and',
    ),
    "a misspelt placeholder": (
        '[[models]]\nname = "m"\nengine = "command"\ncommand = ["srv", "{prot}"]',
        'command has "{prot}": {prot} is no placeholder; placeholders are {port}',
    ),
    "a key for an engine that has one": (
        MODEL + 'api_key_env = "KEY"',
        'engine "sglang" gets a key of its own',
    ),
    "uneven replicas": (
        MODEL.replace("gpus = 1", "gpus = 3") + "data_parallel = 2",
        "gpus 3 cannot be shared out evenly among data_parallel 2",
    ),
    "replicas without GPUs": (
        EXTERNAL + "data_parallel = 2",
        'engine "external" knows no data_parallel',
    ),
    "vllm without a GPU": (
        MODEL.replace("sglang", "vllm").replace("gpus = 1", ""),
        'engine "vllm" needs gpus = 1 or more; without a GPU use "vllm-cpu"',
    ),
    "vllm without a model": (
        '[[models]]\nname = "m"\nengine = "vllm-cpu"',
        'engine "vllm-cpu" needs path',
    ),
    "wrong key": (
        MODEL + "min_engine = 2",
        'models[0].min_engine: is not a key; did you mean "min_engines"?',
    ),
    "wrong section": ("[reddis]", 'reddis: is not a key; did you mean "redis"?'),
    "wrong value": (MODEL + "min_engines = -1", "models[0].min_engines: Input should"),
    "no TOML": ("models =", "cannot be read"),
    "model twice": (MODEL + MODEL, 'model "qwen" stands 2 times'),
    "port twice": (MODEL + PORT + PORT, "port 8001 on host a is pinned to 2 engines"),
    "engine of no model": (
        MODEL + PORT.replace("qwen", "qwem"),
        'an engine names model "qwem", which is not there; did you mean "qwen"?',
    ),
    "engine on no host": (
        MODEL + PORT + '[[hosts]]\nname = "b"',
        'an engine names host "a", which is not there; there are: b',
    ),
    "fallback to no model": (
        MODEL + 'fallback = "gwen2"',
        'falls back to "gwen2", which is no completion model of this fleet',
    ),
    "default of the wrong kind": (
        MODEL + '[defaults]\nembedding = "qwen"',
        'defaults.embedding is "qwen", which is no embedding model',
    ),
    "max below min": (
        MODEL + "min_engines = 3\nmax_engines = 2",
        "max_engines 2 is below min_engines 3",
    ),
    "command without command": (
        '[[models]]\nname = "x"\nengine = "command"',
        'engine "command" needs command',
    ),
    "engine without path": (
        '[[models]]\nname = "x"\nengine = "sglang-cpu"',
        'engine "sglang-cpu" needs path',
    ),
    "GPU engine without GPU": (
        MODEL.replace("gpus = 1", "gpus = 0"),
        'engine "sglang" needs gpus = 1 or more; without a GPU use "sglang-cpu"',
    ),
    "image that looks like an option": (
        MODEL + 'image = "--privileged"',
        'image "--privileged" is no name of an image, such as lmsysorg/sglang',
    ),
    "image of an engine that somebody else runs": (
        EXTERNAL + 'image = "x"',
        'engine "external" is run by somebody else; leave image out',
    ),
    "image and version": (
        MODEL + 'image = "lmsysorg/sglang:v0.5.23"\nengine_version = "0.5.22"',
        "image lmsysorg/sglang:v0.5.23 brings an engine of its own version",
    ),
    "image and builtin model": (
        '[[models]]\nname = "x"\nengine = "sglang-cpu"\npath = "builtin:tiny-chat"\n'
        'image = "mine"',
        'path "builtin:tiny-chat" is written by an installed engine',
    ),
    "container arguments without an image": (
        MODEL + 'container_args = ["--shm-size", "8g"]',
        "container_args are for the container of an image; name one by image",
    ),
    "external engine without url": (
        EXTERNAL + '[[engines]]\nmodel = "far"',
        'an engine of "far" (type external) needs a url',
    ),
    "own engine with url": (
        MODEL + '[[engines]]\nmodel = "qwen"\nurl = "http://far:1"',
        'an engine of "qwen" has a url',
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_file_names_itself_the_key_and_the_remedy(wrong: str, tmp_path: Path):
    text, expected = WRONG[wrong]
    with pytest.raises(ConfigurationError) as raised:
        read(tmp_path, text)
    assert str(raised.value).startswith(str(tmp_path / "fleet.toml"))
    assert expected in str(raised.value)


def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MODELSERVER_REDIS_URL", "redis://far:1/0")
    monkeypatch.setenv("MODELSERVER_RULES_HANG_SECONDS", "17")
    text = '[redis]\nurl = "redis://near:1/0"\nprefix = "x:"\n'
    settings = read(tmp_path, text)
    assert settings.redis_url == settings.results_url == "redis://far:1/0"
    assert settings.fleet.redis.prefix == "x:"
    assert settings.fleet.rules.hang_seconds == 17


def test_results_may_have_a_server_of_their_own(tmp_path: Path):
    text = '[redis]\nurl = "redis://a:1"\nresults_url = "redis://b:1"\n'
    assert read(tmp_path, text).results_url == "redis://b:1"


def test_a_probe_has_a_message_of_its_own(tmp_path: Path):
    probe = read(
        tmp_path, '[probe]\ncompletion = "Hello"\nmax_tokens = 3\n'
    ).fleet.probe
    assert (probe.completion, probe.max_tokens) == ("Hello", 3)
    assert len(probe.embedding) > 500


def test_without_a_file_the_fleet_is_empty(tmp_path: Path):
    settings = load({"MODELSERVER_HOME": "~/x", "MODELSERVER_HOST": "h"}, cwd=tmp_path)
    assert settings.fleet.models == ()
    assert (settings.host, settings.home) == ("h", Path.home() / "x")


def test_a_named_file_must_exist(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"gone\.toml, which does not exist"):
        load({"MODELSERVER_FLEET": "gone.toml"}, cwd=tmp_path)


def test_an_embedded_server_that_does_not_run_is_named(tmp_path: Path):
    with pytest.raises(StoreUnreachableError, match="start it with `modelserver up`"):
        assert read(tmp_path, MODEL).redis_url


def test_a_program_in_another_folder_is_told_of_the_variables(tmp_path: Path):
    settings = load({"MODELSERVER_HOME": str(tmp_path)}, cwd=tmp_path)
    with pytest.raises(StoreUnreachableError, match="set MODELSERVER_FLEET to the"):
        assert settings.redis_url


def test_an_embedded_server_is_found_by_its_file(tmp_path: Path):
    settings = read(tmp_path, MODEL)
    settings.run_dir.mkdir(parents=True)
    (settings.run_dir / "valkey.json").write_text('{"url": "redis://127.0.0.1:7"}')
    assert settings.redis_url == "redis://127.0.0.1:7"


def test_two_fleets_have_run_folders_of_their_own(tmp_path: Path):
    folders = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        environ = {"MODELSERVER_HOME": str(tmp_path)}
        folders.add(load(environ, cwd=tmp_path / name).run_dir)
    assert len(folders) == 2


def test_a_url_that_is_not_redis_is_refused_without_its_password(tmp_path: Path):
    wrong = '[redis]\nurl = "amqp://:secret@host:5672"\n'
    with pytest.raises(
        ConfigurationError, match=r"redis\.url.* must be redis://"
    ) as it:
        read(tmp_path, wrong)
    assert "secret" not in str(it.value)


def test_a_mark_at_the_beginning_is_no_part_of_the_file(tmp_path: Path):
    path = tmp_path / "fleet.toml"
    path.write_bytes(b"\xef\xbb\xbf" + EXTERNAL.replace("\n", "\r\n").encode())
    assert [model.name for model in read_fleet(path).models] == ["far"]


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1", "C.UTF-8"])
def test_the_locale_does_not_change_the_file(tmp_path: Path, locale: str):
    path = tmp_path / "fleet.toml"
    text = EXTERNAL + 'command = ["grüße", "漢字"]\n'
    path.write_text(text.replace("external", "command"), encoding="utf-8")
    code = (
        "import sys; from pathlib import Path\n"
        "from modelserver.fleet.file import read_fleet\n"
        "print(ascii(read_fleet(Path(sys.argv[1])).models[0].command))"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code, path],
        env={**os.environ, "LC_ALL": locale, "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ascii(("grüße", "漢字"))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (EXTERNAL.encode() + '# "Größe"\n'.encode("latin-1"), "byte 0xf6 in line 4"),
        (EXTERNAL.encode("utf-16"), "is UTF-16"),
    ],
)
def test_a_file_in_another_encoding_is_refused(tmp_path: Path, data: bytes, told: str):
    path = tmp_path / "fleet.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match="save it as UTF-8") as it:
        read_fleet(path)
    assert told in str(it.value)


def test_a_renamed_fleet_file_keeps_its_run_folder(tmp_path: Path):
    def settings(name: str) -> Settings:
        return load(
            {
                "MODELSERVER_FLEET": str(tmp_path / name),
                "MODELSERVER_HOME": str(tmp_path / "home"),
            }
        )

    (tmp_path / "fleet.toml").write_text(EXTERNAL)
    first = settings("fleet.toml")
    first.note_run_dir()
    # A copy beside it is another fleet's file for now.
    (tmp_path / "copy.toml").write_text(EXTERNAL)
    assert settings("copy.toml").run_dir != first.run_dir
    (tmp_path / "copy.toml").unlink()
    for name in ("one.toml", "two.toml"):
        present = next(tmp_path.glob("*.toml"))
        present.rename(tmp_path / name)
        renamed = settings(name)
        assert renamed.run_dir == first.run_dir
        renamed.note_run_dir()
    other = EXTERNAL + '[redis]\nurl = "redis://elsewhere/0"\n'
    (tmp_path / "two.toml").unlink()
    (tmp_path / "three.toml").write_text(other)
    assert settings("three.toml").run_dir != first.run_dir


def test_a_run_folder_is_closed_to_other_users(tmp_path: Path):
    (tmp_path / "fleet.toml").touch()
    settings = load({"MODELSERVER_HOME": str(tmp_path / "home")}, cwd=tmp_path)
    settings.run_dir.mkdir(mode=0o755, parents=True)
    assert settings.make_run_dir().stat().st_mode & 0o777 == 0o700


def test_hosts_that_share_a_home_have_run_folders_of_their_own(tmp_path: Path):
    def settings(host: str) -> Settings:
        (tmp_path / "fleet.toml").write_text(EXTERNAL)
        environ = {"MODELSERVER_HOME": str(tmp_path / "home"), "MODELSERVER_HOST": host}
        return load(environ, cwd=tmp_path)

    first, second = settings("h1"), settings("h2")
    assert first.run_dir.parent == tmp_path / "home/run/h1"
    assert second.run_dir.parent == tmp_path / "home/run/h2"
    assert first.files_dir == second.files_dir
    # One machine has one folder, by whatever name it is called there.
    first.note_run_dir()
    assert settings("").run_dir == first.run_dir
    note = first.run_dir / "fleet.json"
    note.write_text(note.read_text().replace(socket.gethostname(), "another-machine"))
    assert settings("h2").run_dir == second.run_dir


def test_a_run_folder_without_a_host_is_kept(tmp_path: Path):
    (tmp_path / "fleet.toml").write_text(EXTERNAL)
    environ = {"MODELSERVER_HOME": str(tmp_path), "MODELSERVER_HOST": "h1"}
    name = load(environ, cwd=tmp_path).run_dir.name
    (tmp_path / "run" / name / "logs").mkdir(parents=True)
    earlier = load(environ, cwd=tmp_path)
    assert earlier.run_dir == tmp_path / "run" / name
    earlier.note_run_dir()
    assert load(environ, cwd=tmp_path).run_dir == tmp_path / "run" / name


def test_environments_of_engines_can_live_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # It is no key "home" of the section [[engines]].
    monkeypatch.setenv("MODELSERVER_ENGINES_HOME", "/shared")
    (tmp_path / "fleet.toml").write_text(EXTERNAL)
    environ = {"MODELSERVER_HOME": "/home/of/host"}
    assert load(environ, cwd=tmp_path).engines_home == Path("/home/of/host")
    environ["MODELSERVER_ENGINES_HOME"] = "/shared"
    assert load(environ, cwd=tmp_path).engines_home == Path("/shared")


ADAPTER = '[[models.adapters]]\nname = "style"\npath = "org/style"\n'


def test_adapters_are_models_of_their_base(tmp_path: Path):
    path = tmp_path / "fleet.toml"
    path.write_text(MODEL + ADAPTER)
    assert read_fleet(path).specs()[0].adapters == (LoraAdapter("style", "org/style"),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (MODEL + ADAPTER + ADAPTER, '"style" stands 2 times'),
        (MODEL + 'kind = "embedding"\n' + ADAPTER, "are for completion models"),
        (
            '[[models]]\nname = "m"\nengine = "command"\ncommand = ["x"]\n' + ADAPTER,
            'engine "command" knows no adapters',
        ),
    ],
)
def test_adapters_that_cannot_be_are_refused(tmp_path: Path, text: str, told: str):
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        read_fleet(path)
