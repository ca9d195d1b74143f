"""Settings of a fleet with alerts, on a real server."""

from pathlib import Path

from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import AlertsSection, ModelSection, RedisSection
from modelserver.settings import Settings
from tests.support.processes import ValkeyProcess


def alert_settings(
    valkey: ValkeyProcess, folder: Path, alerts: AlertsSection, *models: ModelSection
) -> Settings:
    """Settings of this fleet; its files are in ``folder``."""
    fleet = Fleet(models=models, redis=RedisSection(url=valkey.url), alerts=alerts)
    return Settings(fleet, folder / "fleet.toml", folder, "a")
