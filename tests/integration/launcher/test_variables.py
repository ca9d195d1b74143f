"""What engines inherit of the launcher's environment, and what not."""

from pathlib import Path

import psutil

from modelserver.values import EngineState
from tests.support.launchers import open_site, section
from tests.support.processes import LauncherProcess, ValkeyProcess


def test_engines_do_not_get_the_launchers_secrets(
    valkey: ValkeyProcess, tmp_path: Path
) -> None:
    own = section("own") + '[models.environment]\nDATABASE_URL = "db://named"\n'
    own += '[[engines]]\nmodel = "own"\nhost = "h1"\n'
    own += 'environment = { ZE_AFFINITY_MASK = "1" }\n'
    with open_site(tmp_path, valkey, own) as site:
        given = {
            "MODELSERVER_REDIS_URL": valkey.url,
            "AWS_SECRET_ACCESS_KEY": "sesame",
            "DATABASE_URL": "db://other",
            "HF_TOKEN": "for-the-hub",
            "https_proxy": "http://127.0.0.1:9",
            "NCCL_DEBUG": "WARN",
        }
        launcher = LauncherProcess(tmp_path, site.environment | given)
        site.launchers.append(launcher)
        site.want("own", environment={"ZE_AFFINITY_MASK": "a fingerprint"})
        engine = site.reaches("own-0", EngineState.READY)
        environment = psutil.Process(engine.pid).environ()
    ours = {name for name in environment if name.startswith("MODELSERVER_")}
    assert ours == {"MODELSERVER_ENGINE_MARK", "MODELSERVER_ENGINE_RUN"}
    assert "AWS_SECRET_ACCESS_KEY" not in environment
    assert environment["DATABASE_URL"] == "db://named"
    assert environment["ZE_AFFINITY_MASK"] == "1"
    for name in ("HF_TOKEN", "https_proxy", "NCCL_DEBUG", "PATH", "HOME"):
        assert name in environment
