"""Figures for Prometheus, with labels that never name users, media or other servers."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}


class Metrics:
    """All figures of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "mediarepo_requests",
            "Requests answered.",
            ["endpoint", "method", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "mediarepo_request_seconds",
            "Time to answer, bodies included.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._s3_requests = Counter(
            "mediarepo_s3_requests", "Requests to S3.", ["store", "operation", "outcome"], registry=self.registry
        )
        self.objects_missing = Counter(
            "mediarepo_objects_missing", "Objects that S3 had lost when they were asked for.", registry=self.registry
        )
        self.upload_memory_bytes = Gauge(
            "mediarepo_upload_memory_bytes", "Memory reserved for the buffers of uploads.", registry=self.registry
        )
        self.deletions_waiting = Gauge(
            "mediarepo_deletions_waiting", "Objects that wait for their deletion from S3.", registry=self.registry
        )
        self.sweeps_stopped = Counter(
            "mediarepo_sweeps_stopped", "Sweeps that refused to remove anything.", ["store"], registry=self.registry
        )
        self.fetches = Counter(
            "mediarepo_fetches", "Fetches of other servers' media, by outcome.", ["outcome"], registry=self.registry
        )
        self.thumbnails = Counter(
            "mediarepo_thumbnail_jobs", "Render jobs, by outcome.", ["outcome"], registry=self.registry
        )

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
