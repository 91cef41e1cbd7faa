"""What is logged, and how."""

from enum import StrEnum

from mediarepo.config.base import Section


class LogFormat(StrEnum):
    """How a log line looks."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least important events that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogConfig(Section):
    """What is logged."""

    level: LogLevel = LogLevel.INFO
    """debug, info, warning or error."""
    format: LogFormat = LogFormat.TEXT
    """text (for people) or json (one object a line)."""
    access: bool = False
    """Log each request; failures of ours (5xx) are logged anyway."""
