"""Structured logs: short constant events with fields, as text or JSON."""

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from mediarepo.config.server import LogConfig, LogFormat
from mediarepo.model.requester import current_record

_MAX_CHARS = 500


def error_text(error: BaseException) -> str:
    """Describe an exception by its class and its words, cut.

    HTTP clients' exceptions carry the whole request; their representation shows its URL and its headers.
    """
    name = type(error).__name__
    if hasattr(error, "request_info"):
        words = " ".join(str(getattr(error, one, "")) for one in ("status", "message")).strip()
        return f"{name}({words!r})"[:_MAX_CHARS]
    return repr(error)[:_MAX_CHARS]


log = structlog.get_logger(__name__)

_EVENTS = {
    "database": ("database_unavailable", "database_recovered"),
    "store": ("store_unavailable", "store_recovered"),
    "scanner": ("scanner_unavailable", "scanner_recovered"),
    "homeserver": ("homeserver_unavailable", "homeserver_recovered"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutageLog:
    """Remembers since when what is out; `now_ms` is a clock that never goes back."""

    now_ms: Callable[[], int]
    _since: dict[tuple[str, str], int] = field(default_factory=dict)

    def note(self, kind: str, name: str, reason: str | None) -> None:
        """Say that a database, store, homeserver or scanner, by its name, answers (None), or why it does not."""
        key = (kind, name)
        if reason is not None and key not in self._since:
            self._since[key] = self.now_ms()
            log.error(_EVENTS[kind][0], name=name, reason=reason)
        elif reason is None and key in self._since:
            log.warning(_EVENTS[kind][1], name=name, outage_ms=self.now_ms() - self._since.pop(key))


_CACHE_LOGGERS = True
"""Whether loggers keep the first configuration that they meet: faster, and final."""


def set_up_logs(config: LogConfig) -> None:
    """Send everything that is logged, by us and by libraries, to standard error in one format."""
    shared: list[structlog.typing.Processor] = [
        _add_request_id,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if config.format is LogFormat.JSON:
        shared.append(structlog.processors.format_exc_info)  # without local variables, which may be secrets
    renderer = _renderer(config)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=_CACHE_LOGGERS,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.getLogger().handlers = [handler]
    set_log_level(config)


def _renderer(config: LogConfig) -> structlog.typing.Processor:
    if config.format is LogFormat.JSON:
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)


class LineWriter:
    """Writes events of level info to standard error, in the format of all others.

    The way through `logging` costs six times as much, which counts where there is a line for each request.
    """

    def __init__(self, config: LogConfig) -> None:
        self._stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        self._render = _renderer(config)
        self._writer = structlog.WriteLogger(sys.stderr)
        self._levels = logging.getLogger("mediarepo.access")

    def write(self, event: str, fields: Mapping[str, object]) -> None:
        """Write an event, unless the level leaves it out."""
        if not self._levels.isEnabledFor(logging.INFO):
            return
        stamped = self._stamp(self._writer, "info", {"event": event, "level": "info", **fields})
        try:
            self._writer.info(str(self._render(self._writer, "info", stamped)))
        except (OSError, ValueError):  # standard error is closed: as `logging` does, lose the line and not the request
            return


def _add_request_id(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Let every line that is written on behalf of a request name it."""
    record = current_record()
    if record is not None:
        event.setdefault("request_id", record.request_id)
    return event


def set_log_level(config: LogConfig) -> None:
    """Log what is at least so important, of libraries warnings and errors only."""
    level = logging.getLevelNamesMapping()[config.level.upper()]
    logging.getLogger().setLevel(level)
    for chatty in ("aiobotocore", "aioboto3", "boto3", "botocore", "asyncio", "aiohttp.access", "PIL", "urllib3"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))
