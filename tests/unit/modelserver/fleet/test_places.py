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


@pytest.mark.parametrize("sharing", [True, False])
def test_two_pins_on_one_gpu_have_to_share_it(tmp_path: Path, sharing: bool):
    path = tmp_path / "fleet.toml"
    share = "share_gpu = true\ngpu_memory_gib = 10\n" if sharing else ""
    pin = f"{PIN}gpus = [0]\n"
    elsewhere = pin.replace('"a"', '"b"')
    path.write_text(f"{MODEL}{share}min_engines = 3\n{pin}{elsewhere}{pin}")
    if sharing:
        assert len(read_fleet(path).engines) == 3
        return
    with pytest.raises(ConfigurationError) as refused:
        read_fleet(path)
    told = 'engines[2]: GPU 0 of host "a" is that of engines[0]; name another one'
    assert told in str(refused.value)


EXTERNAL = '[[models]]\nname = "e"\nengine = "external"\n[[engines]]\nmodel = "e"\n'
REPLICAS = """
[[models]]
name = "r"
path = "org/r"
gpus = 2
data_parallel = 2
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'{EXTERNAL}url = "http://h:8000/v1"', "engines[0]: url ends with /v1"),
        (f'{EXTERNAL}url = "http://u:p@h:1"', "engines[0]: the URL must hold no name"),
        (f'{EXTERNAL}url = "http://h:99999"', "engines[0]: it is no URL (Port out"),
        (
            '[alerts]\nwebhook = "https://u:p@h/"',
            "alerts.webhook: the URL must hold no",
        ),
        ('[alerts]\nwebhook = "http://a..b/"', "alerts.webhook: it is no URL"),
        ('[alerts]\nwebhook = "http:///x"', "alerts.webhook: the URL names no host"),
        (
            f'{REPLICAS}[[engines]]\nmodel = "r"\ngpus = [0]',
            "engines[0]: gpus has 1, which cannot be shared out evenly",
        ),
        (f'{REPLICAS}hosts = ["a", "b", "a"]', 'models[0]: hosts has "a" twice'),
        ("[rules]\nsteer_seconds = 1e12", "rules: steer_seconds is 1e+12"),
        ("[alerts]\nhook_seconds = 1e7", "alerts: hook_seconds is 1e+07"),
        (f"{REPLICAS}min_engines = 100000000", "models[0]: min_engines is 1e+08"),
        (f"{REPLICAS}max_engines = {10**20}", "models[0]: max_engines is 1e+20"),
        (f"{REPLICAS}context_length = {2**40}", "models[0]: context_length is"),
        (f"{REPLICAS}min_gpu_gib = 1e300", "models[0]: min_gpu_gib is 1e+300"),
    ],
)
def test_what_could_not_be_done_is_refused(tmp_path: Path, text: str, told: str):
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        read_fleet(path)
    assert told in str(refused.value)
