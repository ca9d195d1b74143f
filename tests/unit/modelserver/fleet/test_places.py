"""Hosts and GPUs that cannot be meant as the fleet file says."""

from pathlib import Path

import pytest

from modelserver.errors import ConfigurationError
from modelserver.fleet.file import read_fleet

MODEL = """
[[models]]
name = "m"
engine = "command"
command = ["serve", "--port", "{port}"]
"""
PIN = '[[engines]]\nmodel = "m"\nhost = "a"\n'


@pytest.mark.parametrize(
    ("hosts", "pins", "told"),
    [
        ('[[hosts]]\nname = ""', "", "hosts[0].name: '' can be no host's name"),
        ('[[hosts]]\nname = "a"\n' * 2, "", 'hosts[1]: host "a" stands here before'),
        ('[[hosts]]\nname = "a"\ngpus = [0, 0]', "", "hosts[0]: gpus has 0 twice"),
        ('[[hosts]]\nname = "a"\ngpus = [-1]', "", "hosts[0]: gpus has -1"),
        ("", f"{PIN}gpus = [1, 1]", "engines[0]: gpus has 1 twice"),
        ("", f"{PIN}gpus = [-2]", "engines[0]: gpus has -2"),
        (
            '[[hosts]]\nname = "a"\ngpus = [0]',
            f"{PIN}gpus = [3]",
            'engines[0]: GPU 3 of host "a" is not the fleet\'s; [[hosts]] gives it 0',
        ),
    ],
)
def test_a_place_that_cannot_be_is_refused(
    tmp_path: Path, hosts: str, pins: str, told: str
):
    path = tmp_path / "fleet.toml"
    path.write_text("\n".join([hosts, MODEL, pins]))
    with pytest.raises(ConfigurationError) as refused:
        read_fleet(path)
    assert told in str(refused.value)


def test_places_that_can_be_are_taken(tmp_path: Path):
    path = tmp_path / "fleet.toml"
    hosts = '[[hosts]]\nname = "a"\ngpus = [0, 1]\n[[hosts]]\nname = "b"\ngpus = []\n'
    path.write_text(f"{hosts}{MODEL}{PIN}gpus = [1]\n")
    assert read_fleet(path).engines[0].gpus == (1,)
