"""What docker-compose.yml mounts and starts is where the files in it look."""

import re

from tests.support.sources import ROOT

COMPOSE = (ROOT / "docker-compose.yml").read_text()
GRAFANA = ROOT / "deploy/grafana/provisioning"


def test_grafana_finds_its_dashboard_and_prometheus():
    provider = (GRAFANA / "dashboards/modelserver.yml").read_text()
    (folder,) = re.findall(r"path: (\S+)", provider)
    assert f"./deploy/grafana/dashboards:{folder}:ro\n" in COMPOSE
    source = (GRAFANA / "datasources/prometheus.yml").read_text()
    (address,) = re.findall(r"url: http://(\S+)", source)
    assert f"--web.listen-address={address}\n" in COMPOSE


def test_prometheus_asks_where_the_metrics_are():
    asked = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    (address,) = re.findall(r'targets: \["([^"]+)"\]', asked)
    assert f'"http://{address}/metrics"' in COMPOSE
