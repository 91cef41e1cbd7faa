"""What a check found: a verdict, what was seen, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How good what was seen is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check of one thing: "store main", "range"; `advice` is empty when nothing needs to be done."""

    subject: str
    check: str
    verdict: Verdict
    detail: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """Writes findings about one thing."""

    name: str

    def ok(self, check: str, detail: str) -> Finding:
        """Report that a check passed."""
        return Finding(self.name, check, Verdict.OK, detail)

    def warning(self, check: str, detail: str, advice: str = "") -> Finding:
        """Report what works, but not as it should."""
        return Finding(self.name, check, Verdict.WARNING, detail, advice)

    def problem(self, check: str, detail: str, advice: str = "") -> Finding:
        """Report what does not work."""
        return Finding(self.name, check, Verdict.PROBLEM, detail, advice)


def failure_text(exc: BaseException) -> str:
    """Say in a few words why a connection failed, without addresses of objects and the like."""
    cause = getattr(exc, "certificate_error", None) or getattr(exc, "os_error", None) or exc
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return str(getattr(cause, "verify_message", "") or getattr(cause, "strerror", "") or cause) or type(cause).__name__
