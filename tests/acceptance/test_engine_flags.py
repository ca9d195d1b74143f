"""The installed SGLang still knows every flag by which the adapters start it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from launcher import environments
from launcher.engines import Place, adapter
from modelserver.model import Kind, ModelSpec

pytestmark = pytest.mark.sglang

#: Prints what SGLang's own parser makes of each argv on its standard input.
PARSE = """
import argparse, json, sys
from sglang.srt.server_args import ServerArgs

parser = argparse.ArgumentParser(allow_abbrev=False)
ServerArgs.add_cli_args(parser)
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


def test_every_flag_is_known_and_taken_as_it_was_meant(
    home: Path, tmp_path: Path
) -> None:
    python = environments.interpreter("sglang-cpu", home)
    path = encoder(tmp_path)
    commands = [
        adapter(engine).launch(
            ModelSpec(
                name="model",
                kind=kind,
                path=path,
                engine=engine,
                gpus=2,
                context_length=4096,
                interpreter=str(python),
            ),
            Place(30_000, (0, 1) if engine == "sglang" else ()),
            home,
        )
        for engine in ("sglang-cpu", "sglang")
        for kind in Kind
    ]
    done = subprocess.run(
        [python, "-c", PARSE],
        input=json.dumps([launch.argv[2:] for launch in commands]),
        env=os.environ | {"PYTHONPATH": str(environments.standins_path())},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for launch, (flags, unknown) in zip(
        commands, json.loads(done.stdout.splitlines()[-1]), strict=True
    ):
        assert unknown == []
        assert {flag: as_text(value) for flag, value in flags.items()} == meant(
            launch.argv[2:]
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
    """A parsed value as it stood on the command line, but for zeros at its end."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.2f}" if isinstance(value, float) and value != 0.3 else str(value)
