import pytest
from prometheus_client.parser import text_string_to_metric_families

from mediarepo.telemetry.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = metrics.exposition()[0].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"),
        (206, "ok"),
        (304, "ok"),
        (404, "refused"),
        (429, "limited"),
        (499, "left"),
        (502, "upstream"),
        (504, "refused"),
        (500, "error"),
        (503, "error"),
    ],
)
def test_times_are_told_apart_by_outcome(status: int, outcome: str) -> None:
    metrics = Metrics()
    metrics.request("/a", "GET", status, seconds=0.2, received_bytes=3, sent_bytes=5)

    assert value(metrics, "mediarepo_request_seconds_count", endpoint="/a", outcome=outcome) == 1
    assert value(metrics, "mediarepo_received_bytes_total", endpoint="/a") == 3
    assert value(metrics, "mediarepo_sent_bytes_total", endpoint="/a") == 5


def test_pools_and_budgets_are_read_when_they_are_asked_for() -> None:
    metrics, used = Metrics(), [2.0]
    metrics.show_pool("database", 10, lambda: used[0], lambda: 0)
    metrics.show_memory("uploads", 100, lambda: used[0])
    used[0] = 7

    assert value(metrics, "mediarepo_pool_connections", pool="database", state="in_use") == 7
    assert value(metrics, "mediarepo_pool_connections", pool="database", state="limit") == 10
    assert value(metrics, "mediarepo_memory_budget_bytes", budget="uploads", state="in_use") == 7


def test_every_metric_that_is_exposed_is_described() -> None:
    metrics = Metrics()
    described = {one.name.removesuffix("_total") for one in metrics.descriptions}
    exposed = {family.name for family in metrics.registry.collect()}

    assert exposed - {name.removesuffix("_total") for name in described} == set()
    assert len(described) == len(metrics.descriptions)


def test_the_process_and_the_build_are_told() -> None:
    found = samples(Metrics())

    assert any(name == "mediarepo_build_info" and number == 1 for (name, _), number in found.items())
    assert any(name == "process_resident_memory_bytes" and number > 0 for (name, _), number in found.items())
