"""The alerts and the dashboard name metrics that exist, and each alert an entry of the runbook."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mediarepo.telemetry.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
RULES = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
NAME = re.compile(r"\b(?:mediarepo|process)_[a-z0-9_]+\b")
MATCHER = re.compile(r"\b((?:mediarepo|process)_[a-z0-9_]+)\{([^}]*)\}")
OF_THE_SCRAPE = {"job", "instance", "le", "worker"}


def known() -> dict[str, set[str]]:
    """Name the series of all metrics, with their labels."""
    found = {}
    for one in Metrics().descriptions:
        endings = ("_bucket", "_count", "_sum") if one.kind == "histogram" else ("",)
        found.update({f"{one.name}{ending}": {*one.labels, *OF_THE_SCRAPE} for ending in endings})
    return found


def expressions() -> list[str]:
    of_panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    return [*(rule["expr"] for rule in RULES), *of_panels]


def headings(page: Path) -> set[str]:
    """Name the anchors of a page's headings."""
    lines = [line.lstrip("#").strip().lower() for line in page.read_text().splitlines() if line.startswith("#")]
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", line)).strip("-") for line in lines}


@pytest.mark.parametrize("expression", expressions())
def test_each_metric_and_label_that_is_asked_for_exists(expression: str) -> None:
    series = known()

    assert set(NAME.findall(expression)) - set(series) == set()
    for name, matchers in MATCHER.findall(expression):
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) - series[name] == set()


def test_the_dashboard_shows_each_metric() -> None:
    shown = set(NAME.findall(" ".join(expressions())))
    unseen = {
        one for one in known() if one.startswith("mediarepo_") and not one.endswith(("_sum", "_count", "_bucket"))
    }

    # what has its own panel as a histogram or as part of a sum, and what no operator follows over time
    assert unseen - shown == {
        "mediarepo_upload_memory_bytes",  # a part of memory_budget_bytes
        "mediarepo_requests_total",  # request_seconds_count, with outcomes in place of statuses
        "mediarepo_read_through_requests_total",
        "mediarepo_item_failures_total",
        "mediarepo_stored_objects",
        "mediarepo_media",
        "mediarepo_import_running",
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_says_what_is_wrong_and_where_its_remedy_is(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook"].partition("#")

    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"]
    assert anchor in headings(ROOT / page)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_prometheus_accepts_the_rules_and_alerts_fire_when_they_should(tmp_path: Path) -> None:
    shutil.copytree(MONITORING, tmp_path, dirs_exist_ok=True)
    shutil.copy(Path(__file__).with_name("alerts_test.yaml"), tmp_path)
    commands = ("check rules alerts.yaml", "check config prometheus.yml", "test rules alerts_test.yaml")
    for command in commands:
        done = subprocess.run(["promtool", *command.split()], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
