"""The installed engines still know every flag by which the adapters start them."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from launcher import environments
from launcher.engine_types import Launch, Place, adapter
from modelserver.values import Kind, ModelSpec

pytestmark = pytest.mark.sglang

#: Prints what SGLang's own parser makes of each argv on its standard input.
SGLANG = """
import argparse, json, sys
from sglang.srt.server_args import ServerArgs

parser = argparse.ArgumentParser(allow_abbrev=False)
ServerArgs.add_cli_args(parser)
"""
#: The same for vLLM, whose parser is made for ``vllm serve`` and its older entry.
VLLM = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = make_arg_parser(FlexibleArgumentParser())
"""
PARSE = """
parsed = []
for argv in json.load(sys.stdin):
    known, unknown = parser.parse_known_args(argv)
    flags = {
        flag: getattr(known, action.dest)
        for action in parser._actions
        for flag in action.option_strings
        if flag in argv
    }
    parsed.append([flags, unknown])
print(json.dumps(parsed))
"""


def encoder(folder: Path) -> str:
    """A folder that looks like a model of the kind that gets flags of its own."""
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return str(folder)


def test_every_flag_of_sglang_is_known_and_taken_as_it_was_meant(
    home: Path, tmp_path: Path
) -> None:
    understood(SGLANG, "sglang", home, encoder(tmp_path))


@pytest.mark.vllm
def test_every_flag_of_vllm_is_known_and_taken_as_it_was_meant(
    home_with_vllm: Path, tmp_path: Path
) -> None:
    understood(VLLM, "vllm", home_with_vllm, encoder(tmp_path))


def understood(parser: str, engine: str, home: Path, path: str) -> None:
    """Have the engine's own parser read what starts it with and without GPUs."""
    python = environments.interpreter(f"{engine}-cpu", home)
    cpu, gpu = f"{engine}-cpu", engine
    commands = [
        adapter(engine).launch(
            ModelSpec(
                name="model",
                kind=kind,
                path=path,
                engine=engine,
                gpus=2,
                context_length=4096,
                data_parallel=2 if engine == gpu else 1,
                torch_compile=compiled,
                interpreter=str(python),
            ),
            Place(30_000, (0, 1) if engine == gpu else ()),
            home,
        )
        for engine in (cpu, gpu)
        for kind in Kind
        for compiled in (True, False)
    ]
    read_by(parser, python, commands)


def read_by(parser: str, python: Path, commands: list[Launch]) -> None:
    """Compare what each command says with what the parser makes of it."""
    arguments = [launch.argv[first_flag(launch) :] for launch in commands]
    done = subprocess.run(
        [python, "-c", parser + PARSE],
        input=json.dumps(arguments),
        env=os.environ | {"PYTHONPATH": str(environments.standins_path())},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parsed = json.loads(done.stdout.splitlines()[-1])
    for argv, (flags, unknown) in zip(arguments, parsed, strict=True):
        assert unknown == []
        found = {flag: as_text(value) for flag, value in flags.items()}
        assert found == {flag: as_text(value) for flag, value in meant(argv).items()}


def first_flag(launch: Launch) -> int:
    """Where the program ends and its flags begin."""
    entry = "vllm.entrypoints.openai.api_server"
    if entry in launch.argv:
        return launch.argv.index(entry) + 1
    serve = launch.argv.index("serve")
    return next(
        place
        for place, word in enumerate(launch.argv)
        if place > serve and word.startswith("--")
    )


def meant(argv: tuple[str, ...]) -> dict[str, str]:
    """The values by flag; a flag without one is true."""
    values: dict[str, str] = {}
    for word in argv:
        if word.startswith("--"):
            flag = word
            values[flag] = "true"
        else:
            values[flag] = word
    return values


def as_text(value: Any) -> str:
    """A value as it stood on the command line; a list of one as that one."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
