"""The figures as a table, and the bars they have to clear."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.measure import NGINX, OURS, Result
from bench.waiting import Waits

_HEADS = ("case", "server", "req/s", "MB/s", "CPU ms/req", "rate : nginx", "CPU : nginx", "PSS MB", "errors")
_MAX_DOWNLOAD_CPU_MS = 0.35
_MIN_RATE_RATIO = 0.6
_MAX_PSS_MB = 120
_MAX_THUMBNAIL_CPU_MS = 100
_MAX_FIRST_BYTE_MS = 30
_MAX_NEWS_MS = 250


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise, and whether it is kept; None where it could not be measured."""

    promise: str
    figure: str
    kept: bool | None

    def __str__(self) -> str:
        word = {True: "pass", False: "FAIL", None: "not measured"}[self.kept]
        return f"{word}: {self.promise}: {self.figure}"


def table(results: Sequence[Result]) -> str:
    """Set all results as a Markdown table."""
    rows = [_HEADS, *(row for result in results for row in _rows(result))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = ["| " + " | ".join(_set(row, widths)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 1) + ("-" if column < 2 else ":") for column, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def bars(results: Sequence[Result], *, pss_mb: float, thumbnail_cpu_ms: float) -> list[Bar]:
    """Judge the figures."""
    by_name = {result.case.name: result for result in results}
    return [*_download_bars(by_name), *_other_bars(pss_mb, thumbnail_cpu_ms)]


def wait_bars(waits: Waits) -> list[Bar]:
    """Judge what clients wait for others, by the median: one hiccup of the machine is none of ours."""
    first_ms, news_ms = median(waits.first_byte_ms), median(waits.news_ms)
    return [
        Bar(
            f"first byte within {_MAX_FIRST_BYTE_MS} ms of the origin's",
            f"{first_ms:.1f} ms",
            first_ms <= _MAX_FIRST_BYTE_MS,
        ),
        Bar(f"news of an upload within {_MAX_NEWS_MS} ms", f"{news_ms:.1f} ms", news_ms <= _MAX_NEWS_MS),
    ]


def _download_bars(by_name: Mapping[str, Result]) -> Iterator[Bar]:
    cpu_ms = by_name["download 10 KB"].cpu_ms(OURS)
    yield Bar(
        f"at most {_MAX_DOWNLOAD_CPU_MS} ms of CPU per authenticated download of 10 KB",
        f"{cpu_ms:.3f} ms",
        cpu_ms <= _MAX_DOWNLOAD_CPU_MS,
    )
    for name in ("download 1 MB", "download 100 MB"):
        promise = f"at least {_MIN_RATE_RATIO} of nginx's throughput at {name.removeprefix('download ')}"
        ratio = by_name[name].rate_ratio(OURS)
        if ratio is None:
            yield Bar(promise, "nginx is not installed", None)
        else:
            yield Bar(promise, f"{ratio:.2f}", ratio >= _MIN_RATE_RATIO)


def _other_bars(pss_mb: float, thumbnail_cpu_ms: float) -> Iterator[Bar]:
    yield Bar(f"less than {_MAX_PSS_MB} MB of memory (PSS) afterwards", f"{pss_mb:.1f} MB", pss_mb < _MAX_PSS_MB)
    yield Bar(
        f"five thumbnails of a 12-megapixel JPEG in at most {_MAX_THUMBNAIL_CPU_MS} ms of CPU",
        f"{thumbnail_cpu_ms:.1f} ms",
        thumbnail_cpu_ms <= _MAX_THUMBNAIL_CPU_MS,
    )


def _rows(result: Result) -> Iterator[tuple[str, ...]]:
    for server in result.rounds:
        yield (
            result.case.name,
            server,
            f"{result.requests_per_s(server):.{_digits(result.requests_per_s(server))}f}",
            f"{result.mb_per_s(server):.0f}",
            f"{result.cpu_ms(server):.3f}",
            _ratio(None if server == NGINX else result.rate_ratio(server)),
            _ratio(None if server == NGINX else result.cpu_ratio(server)),
            f"{result.pss_mb[server]:.0f}",
            str(result.errors(server)),
        )


def _digits(figure: float) -> int:
    return 0 if figure >= 100 else 1


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _set(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for column, (text, width) in enumerate(zip(row, widths, strict=True)):
        yield text.ljust(width) if column < 2 else text.rjust(width)
