"""Prometheus metrics; labels never name users, media or other servers. docs/metrics.md is made of this module."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from mediarepo.model.concurrency import Admission, InUse

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_WAIT_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}
_REFUSED, _ERROR = 400, 500


@dataclass(frozen=True, slots=True)
class MetricDescription:
    """What docs/metrics.md says of a metric; `kind` is counter, gauge or histogram."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class _Request(NamedTuple):
    requests: Counter
    seconds: Histogram
    received: Counter
    sent: Counter


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.descriptions: list[MetricDescription] = []
        self._children: dict[tuple[str, str, int], _Request] = {}
        self._add_requests()
        self._add_storage()
        self._add_work()
        self._add_background_work()
        self._add_scanners()
        self._add_process()

    def _add_requests(self) -> None:
        self._requests = self._counter("requests", "Requests answered.", "endpoint", "method", "status")
        self._seconds = self._histogram(
            "request_seconds",
            "Time to answer, bodies included. Outcome: ok, refused (4xx, and 504: not uploaded yet), limited (429), "
            "upstream (502: another server or the homeserver failed), left (the client went), error (other 5xx).",
            "endpoint",
            "outcome",
        )
        self._received = self._counter("received_bytes", "Bytes of requests' bodies.", "endpoint")
        self._sent = self._counter("sent_bytes", "Bytes of answers.", "endpoint")
        self._refusals = self._counter(
            "refusals",
            "Requests refused, by the error in mediarepo/errors.py: LimitExceededError, QuotaExceededError and so on.",
            "error",
        )
        self.identity_checks = self._counter(
            "identity_checks", "Access tokens looked up: cached, appservice, asked, refused, unavailable.", "outcome"
        )
        self.foreign_users = self._counter(
            "foreign_users_refused", "Tokens for which a homeserver named a user of another server.", "server_name"
        )
        self.outages_answered_as_not_found = self._counter(
            "outages_answered_as_not_found", "Requests of other servers answered with 404 because of an outage of ours."
        )

    def _add_storage(self) -> None:
        self._s3_requests = self._counter("s3_requests", "Requests to S3.", "store", "operation", "outcome")
        self._s3_seconds = self._histogram(
            "s3_request_seconds", "Time until S3 had answered, failures included.", "store", "operation"
        )
        self._s3_children: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._pool_connections = self._gauge(
            "pool_connections",
            "Connections of a pool (database, s3:STORE) and who waits for one: limit, in_use, waiting.",
            "pool",
            "state",
        )
        self.row_cache_lookups = self._counter(
            "row_cache_lookups",
            "Rows of media that were wanted while the lease on cached rows held: hit, miss.",
            "outcome",
        )
        self._pool_wait = self._histogram(
            "pool_wait_seconds", "Time spent waiting for a connection.", "pool", buckets=_WAIT_SECONDS
        )
        self.objects_missing = self._counter("objects_missing", "Objects that S3 had lost when they were asked for.")
        self.store_refuses_writes = self._gauge(
            "store_refuses_writes", "1 while a store takes no new objects, being full for instance.", "store"
        )
        self.upload_memory_bytes = self._gauge("upload_memory_bytes", "Memory reserved for the buffers of uploads.")
        self._memory = self._gauge(
            "memory_budget_bytes",
            "Memory budgets (uploads, thumbnail_sources, remote_media): limit, in_use.",
            "budget",
            "state",
        )

    def _add_work(self) -> None:
        self.thumbnails = self._counter(
            "thumbnail_jobs",
            "Render jobs: made, refused (the file's fault, remembered), failed (to be tried again).",
            "outcome",
        )
        self.thumbnail_failures = self._counter(
            "thumbnail_failures",
            "Render jobs that failed, by reason; the worker was killed for timed_out, too_much_work and worker_died.",
            "reason",
        )
        self.remote_fetches = self._counter("remote_fetches", "Fetches of other servers' media, by outcome.", "outcome")
        self._admission_in_use = self._gauge("admission_in_use", "Places for costly work that are taken.", "work")
        self._admission_waiting = self._gauge(
            "admission_waiting", "Requests that wait for a place for costly work.", "work"
        )
        self.sandbox = self._gauge(
            "sandbox", "1 where the last process that was started for untrusted bytes has it.", "mechanism"
        )
        self.read_through_requests = self._counter(
            "read_through_requests", "Media looked up where they were kept before.", "outcome"
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
        self.drift = self._gauge("drift", "Leftovers that the fleet's last sweep found.", "store", "kind")
        self.job_finished = self._gauge(
            "job_finished_seconds",
            "When the fleet last did it, in Unix time; journal is the backup of the rows in the bucket.",
            "name",
        )
        self.job_failed = self._gauge("job_failed", "1 when the last time failed.", "name")
        self.database_behind = self._gauge(
            "database_behind", "1 while the bucket is newer than the database, so that nothing is deleted.", "store"
        )
        self.sweeps_stopped = self._counter("sweeps_stopped", "Sweeps that refused to remove anything.", "store")
        self.stored_bytes = self._gauge(
            "stored_bytes", "Bytes of the objects in S3, in the whole fleet.", "store", "class"
        )
        self.stored_objects = self._gauge("stored_objects", "Objects in S3, in the whole fleet.", "store", "class")
        self.media_bytes = self._gauge(
            "media_bytes",
            "Bytes of media by homeserver (remote for all others'), equal content counted each time.",
            "class",
            "server_name",
        )
        self.media_count = self._gauge("media", "Media by homeserver (remote for all others').", "class", "server_name")
        self.import_items = self._gauge(
            "import_items", "Items of the last run of an import, by state; rows is what was read.", "source", "state"
        )
        self.import_running = self._gauge("import_running", "1 while an import runs.", "source")

    def _add_scanners(self) -> None:
        self.scans = self._counter(
            "scans",
            "Contents that a scanner was asked about, or not: clean, infected, unscannable, failed (no verdict), "
            "remembered (asked before), too_large, excluded_type, let_through (while it was down), and among those "
            "scanned opaque (application/octet-stream, which may be encrypted).",
            "scanner",
            "outcome",
        )
        self.scan_seconds = self._histogram("scan_seconds", "Time until a scanner gave its verdict.", "scanner")
        self.scanner_up = self._gauge("scanner_up", "1 while a scanner answers this process.", "scanner")
        self.scans_waiting = self._gauge(
            "scans_waiting", "Contents that wait for a scanner, in the whole fleet.", "scanner"
        )
        self.scan_holds = self._gauge(
            "scan_holds", "Media that are hidden until a scanner has spoken, in the whole fleet.", "scanner"
        )

    def _add_process(self) -> None:
        self.loop_lag = self._histogram(
            "loop_lag_seconds", "How late the event loop was, measured twice a second.", buckets=_LAG_SECONDS
        )
        self._gauge("build_info", "1; the version is in the label.", "version").labels(_version()).set(1)
        ProcessCollector(registry=self.registry)
        self._describe("in_use", "gauge", ("resource",), _IN_USE)
        for name, meaning in _OF_PROCESS.items():
            self.descriptions.append(
                MetricDescription(name, "counter" if name.endswith("_total") else "gauge", (), meaning)
            )

    def show_in_use(self, in_use: InUse) -> None:
        """Show what is held just now."""
        self.registry.register(_InUseCollector(in_use))

    def show_admission(self, work: str, admission: Admission) -> None:
        """Show how much of something is in use, and how many wait for it."""
        self._admission_in_use.labels(work).set_function(lambda: admission.in_use)
        self._admission_waiting.labels(work).set_function(lambda: admission.waiting)

    def show_pool(self, pool: str, limit: int, in_use: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Show how many connections a pool may have, lends, and how many tasks wait for one."""
        self._pool_connections.labels(pool, "limit").set(limit)
        self._pool_connections.labels(pool, "in_use").set_function(in_use)
        self._pool_connections.labels(pool, "waiting").set_function(waiting)

    def pool_wait(self, pool: str) -> Callable[[float], None]:
        """Return what takes note of the time spent waiting for a connection of a pool, in seconds."""
        return self._pool_wait.labels(pool).observe

    def show_memory(self, budget: str, limit_bytes: int, in_use: Callable[[], float]) -> None:
        """Show how much of a memory budget is in use, in bytes."""
        self._memory.labels(budget, "limit").set(limit_bytes)
        self._memory.labels(budget, "in_use").set_function(in_use)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self._describe(f"{name}_total", "counter", labels, meaning)
        return Counter(f"mediarepo_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self._describe(name, "gauge", labels, meaning)
        return Gauge(f"mediarepo_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        self._describe(name, "histogram", labels, meaning)
        return Histogram(f"mediarepo_{name}", meaning, labels, buckets=buckets, registry=self.registry)

    def _describe(self, name: str, kind: str, labels: tuple[str, ...], meaning: str) -> None:
        self.descriptions.append(MetricDescription(f"mediarepo_{name}", kind, labels, meaning))

    def request(
        self, endpoint: str, method: str, status: int, *, seconds: float, received_bytes: int, sent_bytes: int
    ) -> None:
        """Count one answered request."""
        key = (endpoint, method, status)
        children = self._children.get(key)
        if children is None:
            children = _Request(
                self._requests.labels(endpoint, method if method in _METHODS else "other", str(status)),
                self._seconds.labels(endpoint, _outcome(status)),
                self._received.labels(endpoint),
                self._sent.labels(endpoint),
            )
            if method in _METHODS:
                self._children[key] = children
        children.requests.inc()
        children.seconds.observe(seconds)
        if received_bytes:
            children.received.inc(received_bytes)
        if sent_bytes:
            children.sent.inc(sent_bytes)

    def refused(self, error: str) -> None:
        """Count one refusal, by the error's class."""
        self._refusals.labels(error).inc()

    def s3_request(self, store: str, operation: str, outcome: str, seconds: float) -> None:
        """Count one request to S3."""
        key = (store, operation, outcome)
        children = self._s3_children.get(key)
        if children is None:
            children = self._s3_requests.labels(*key), self._s3_seconds.labels(store, operation)
            self._s3_children[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def requests_by_class(self) -> dict[str, int]:
        """Return the number of requests answered, by the first digit of the status, as in `2xx`."""
        found: dict[str, int] = {}
        for sample in (one for metric in self._requests.collect() for one in metric.samples):
            if sample.name.endswith("_total"):
                name = f"{sample.labels['status'][:1]}xx"
                found[name] = found.get(name, 0) + int(sample.value)
        return found

    def exposition(self) -> tuple[bytes, str]:
        """Write all metrics as text, with its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


def _outcome(status: int) -> str:
    match status:
        case 429:
            return "limited"
        case 499:
            return "left"
        case 502:
            return "upstream"
        case 504:
            return "refused"  # M_NOT_YET_UPLOADED, which the specification requires
        case _ if status >= _ERROR:
            return "error"
        case _:
            return "refused" if status >= _REFUSED else "ok"


def _version() -> str:
    try:
        return version("matrix-mediarepo")
    except PackageNotFoundError:
        return "unknown"


_IN_USE = "What is held or done just now; 0 when nothing goes on."
_OF_PROCESS = {
    "process_cpu_seconds_total": "Processor time of this process, without its workers.",
    "process_resident_memory_bytes": "Memory of this process, without its workers.",
    "process_virtual_memory_bytes": "Address space of this process.",
    "process_start_time_seconds": "When this process started, in Unix time.",
    "process_open_fds": "Open file descriptors.",
    "process_max_fds": "Limit of open file descriptors.",
}


class _InUseCollector(Collector):
    """Reads numbers when they are asked for."""

    def __init__(self, in_use: InUse) -> None:
        self._in_use = in_use

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("mediarepo_in_use", _IN_USE, labels=["resource"])
        for resource, number in self._in_use.read().items():
            family.add_metric([resource], number)
        yield family
