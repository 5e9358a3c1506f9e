"""What `deploy/` and `docker-compose.yml` say is true: metrics, settings, files, ports, versions."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.metrics import Metrics
from streams.settings import Settings, unknown
from tests.services import KAFKA_IMAGE, ROOT

DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "decisioning.json"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def alerts() -> list[dict[str, Any]]:
    """All alert rules."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_queries() -> list[str]:
    """All PromQL of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def exported() -> set[str]:
    """Names of the series that a worker exports."""
    found = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        for suffix in suffixes:
            found.add(family.name + suffix)
    return found


def tool(name: str) -> str:
    """Path of a program of Debian's `prometheus`; in CI it must be there."""
    if found := shutil.which(name):
        return found
    if os.environ.get("CI"):
        pytest.fail(f"no {name} on the path in CI", pytrace=False)
    pytest.skip(f"no {name} on the path")


def run(*command: str | Path) -> None:
    """Run a checking program, which must find nothing."""
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("query", [*dashboard_queries(), *(rule["expr"] for rule in alerts())])
def test_queries_name_metrics_that_exist(query: str) -> None:
    """The dashboard and the alerts ask only for series that a worker exports."""
    asked = set(re.findall(r"\b(?:decisioning|process)_[a-z_]+\b", query))
    assert asked <= exported()
    assert asked or re.search(r"\bup\b", query)


def test_alerts_are_valid_and_fire_when_they_should() -> None:
    """Prometheus's own checker accepts configuration and rules, and the rules pass their tests."""
    promtool = tool("promtool")
    run(promtool, "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    run(promtool, "check", "rules", ALERTS)
    run(promtool, "test", "rules", DEPLOY / "prometheus" / "alerts_test.yml")


def test_every_alert_is_tested_and_has_a_runbook() -> None:
    """Each alert has a summary, a test, and a section of docs/operations.md that its link leads to."""
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for rule in alerts():
        assert rule["annotations"]["summary"]
        assert rule["alert"] in fired
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/operations.md"
        assert anchor in anchors


def test_dashboard_is_provisioned_with_the_datasource_it_names() -> None:
    """Panels have distinct ids, do not overlap, and use the datasource that Grafana gets."""
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    uid = source["datasources"][0]["uid"]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {uid}
        place = panel["gridPos"]
        columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        cells = {(x, y) for x in columns for y in rows}
        assert not cells & taken, f"{panel['title']} overlaps another panel"
        assert max(columns) < 24
        taken |= cells


def test_compose_is_valid() -> None:
    """`docker compose config` accepts the file, where the plugin is installed."""
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no `docker compose` here")
    run(docker, "compose", "-f", ROOT / "docker-compose.yml", "config", "--quiet")


@pytest.mark.parametrize("name", SERVICES)
def test_compose_service_is_closed_checked_and_pinned(name: str) -> None:
    """Ports are published on loopback alone, files exist, versions are exact, who waits waits for health."""
    service = SERVICES[name]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "build" in service or re.search(r":v?\d+\.\d+", service["image"])
    assert service.get("healthcheck") or "build" in service, "the image of ours has its own health check"
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (ROOT / source).exists()
            assert volume.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]
    for other, how in service.get("depends_on", {}).items():
        once = SERVICES[other].get("restart") == "no"
        assert how["condition"] == ("service_completed_successfully" if once else "service_healthy")


def test_compose_settings_are_settings() -> None:
    """Each variable given to a worker is one it knows, and their values are accepted."""
    environment = SERVICES["worker"]["environment"]
    assert unknown(environment) == []
    given = {name.removeprefix("DECISIONING_").lower(): value for name, value in environment.items()}
    Settings(**{name: value for name, value in given.items() if not value.startswith("${")})


def test_compose_runs_the_broker_that_is_tested() -> None:
    """Kafka and Redis in docker-compose.yml have the settings that exactly-once needs."""
    assert SERVICES["kafka"]["image"] == KAFKA_IMAGE
    assert {"--appendonly yes", "--maxmemory-policy noeviction"} <= {
        " ".join(pair) for pair in zip(SERVICES["redis"]["command"], SERVICES["redis"]["command"][1:], strict=False)
    }


def test_image_is_built_from_files_that_exist() -> None:
    """Each COPY source of the Dockerfile exists, is not ignored, and the image runs as no root."""
    text = (DEPLOY / "Dockerfile").read_text()
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert f"!{source}" in ignore
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)
    assert "--require-hashes" in text
    assert "/livez" in text
