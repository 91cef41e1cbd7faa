"""Prometheus metrics; labels never name users, media or other servers."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from mediarepo.model.concurrency import Admission, InUse

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}


class Metrics:
    """All figures of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._requests = self._counter("requests", "Requests answered.", "endpoint", "method", "status")
        self._seconds = Histogram(
            "mediarepo_request_seconds",
            "Time to answer, bodies included.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._add_background_work()
        self.loop_lag = Histogram(
            "mediarepo_loop_lag_seconds",
            "How late the event loop was, measured twice a second.",
            buckets=_LAG_SECONDS,
            registry=self.registry,
        )
        self._s3_requests = self._counter("s3_requests", "Requests to S3.", "store", "operation", "outcome")
        self.objects_missing = self._counter("objects_missing", "Objects that S3 had lost when they were asked for.")
        self.upload_memory_bytes = self._gauge("upload_memory_bytes", "Memory reserved for the buffers of uploads.")
        self.thumbnails = self._counter("thumbnail_jobs", "Render jobs, by outcome.", "outcome")
        self.remote_fetches = self._counter("remote_fetches", "Fetches of other servers' media, by outcome.", "outcome")
        self._admission_in_use = self._gauge("admission_in_use", "Places for costly work that are taken.", "work")
        self._admission_waiting = self._gauge(
            "admission_waiting", "Requests that wait for a place for costly work.", "work"
        )
        self.sandbox = self._gauge(
            "sandbox", "1 where the last process that was started for untrusted bytes has it.", "mechanism"
        )
        self.foreign_users = self._counter(
            "foreign_users_refused", "Tokens for which a homeserver named a user of another server.", "server_name"
        )
        self.read_through_requests = self._counter(
            "read_through_requests", "Media looked up where they were kept before.", "outcome"
        )
        self.outages_answered_as_not_found = self._counter(
            "outages_answered_as_not_found", "Requests of other servers answered with 404 because of an outage of ours."
        )

    def _add_background_work(self) -> None:
        self.deletions_waiting = self._gauge("deletions_waiting", "Objects that wait for their deletion from S3.")
        self.backlog = self._gauge("backlog", "Work that waits in the background, in the whole fleet.", "queue")
        self.items_set_aside = self._gauge(
            "items_set_aside", "Items that background work could not process, in the whole fleet.", "queue"
        )
        self.item_failures = self._counter(
            "item_failures", "Times that an item could not be processed and was set aside.", "queue"
        )
        self.store_refuses_writes = self._gauge(
            "store_refuses_writes",
            "1 while a store takes no new objects, being full for instance.",
            "store",
        )
        self.drift = self._gauge("drift", "Leftovers that the fleet's last sweep found.", "store", "kind")
        self.job_finished = self._gauge("job_finished_seconds", "When the fleet last did it, in Unix time.", "job")
        self.job_failed = self._gauge("job_failed", "1 when the last time failed.", "job")
        self.database_behind = self._gauge(
            "database_behind", "1 while the bucket is newer than the database, so that nothing is deleted.", "store"
        )
        self.sweeps_stopped = self._counter("sweeps_stopped", "Sweeps that refused to remove anything.", "store")

    def show_in_use(self, in_use: InUse) -> None:
        """Show what is held just now."""
        self.registry.register(_InUseCollector(in_use))

    def show_admission(self, work: str, admission: Admission) -> None:
        """Show how much of something is in use, and how many wait for it."""
        self._admission_in_use.labels(work).set_function(lambda: admission.in_use)
        self._admission_waiting.labels(work).set_function(lambda: admission.waiting)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"mediarepo_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"mediarepo_{name}", meaning, labels, registry=self.registry)

    def request(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        key = (endpoint, method, status)
        children = self._children.get(key)
        if children is None:
            known = method if method in _METHODS else "other"
            children = (self._requests.labels(endpoint, known, str(status)), self._seconds.labels(endpoint))
            if method in _METHODS:
                self._children[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def s3_request(self, store: str, operation: str, outcome: str) -> None:
        """Count one request to S3."""
        self._s3_requests.labels(store, operation, outcome).inc()

    def exposition(self) -> tuple[bytes, str]:
        """Write all figures as text, with its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class _InUseCollector(Collector):
    """Reads numbers when they are asked for."""

    def __init__(self, in_use: InUse) -> None:
        self._in_use = in_use

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "mediarepo_in_use", "What is held or done just now; 0 when nothing goes on.", labels=["resource"]
        )
        for resource, number in self._in_use.read().items():
            family.add_metric([resource], number)
        yield family
