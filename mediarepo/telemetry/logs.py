"""Structured logs: short constant events with fields, as text or JSON."""

import logging
import sys

import structlog

from mediarepo.config.server import LogConfig, LogFormat


def set_up_logs(config: LogConfig) -> None:
    """Send everything that is logged, by us and by libraries, to standard error in one format."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: structlog.typing.Processor
    if config.format is LogFormat.JSON:
        shared.append(structlog.processors.format_exc_info)  # without local variables, which may be secrets
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
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


def set_log_level(config: LogConfig) -> None:
    """Log what is at least so important, of libraries warnings and errors only."""
    level = logging.getLevelNamesMapping()[config.level.upper()]
    logging.getLogger().setLevel(level)
    for chatty in ("aiobotocore", "aioboto3", "boto3", "botocore", "asyncio", "aiohttp.access", "PIL", "urllib3"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))
