"""The record of one request, filled on its way: the fields of its log line, and the time of each stage."""

import os
import re
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import count
from time import perf_counter

from mediarepo.model.mxc import Mxc

_GIVEN = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class Stage(IntEnum):
    """What a request waits for; the number is its place in `RequestRecord.seconds`."""

    IDENTITY = 0
    DATABASE = 1
    S3 = 2


@dataclass(slots=True)
class RequestRecord:
    """What is known of a request; `seconds` by stage, those of work that ran at the same time added up.

    `object_key` is the object that was read or written last. `first_byte` is when the answer's headers were sent, on
    the clock of `began`, in seconds; 0.0 before that. `handed_over_bytes` are those that nginx sends for us.
    """

    request_id: str
    began: float = field(default_factory=perf_counter)
    first_byte: float = 0.0
    user_id: str | None = None
    origin: str | None = None
    homeserver: str | None = None
    mxc: Mxc | None = None
    object_key: str | None = None
    errcode: str | None = None
    handed_over_bytes: int = 0
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    def note(self, stage: Stage, began: float) -> None:
        """Add the time since `began`, on the clock of `time.perf_counter`, to a stage."""
        self.seconds[stage] += perf_counter() - began


def parse_request_id(given: str | None) -> str | None:
    """Return a proxy's request id; None when there is none, or it has characters that a log line should not carry."""
    return given if given is not None and _GIVEN.fullmatch(given) else None


class RequestIds:
    """Makes request ids that no other process makes: 12 random hexadecimal digits of the process, and a number."""

    def __init__(self) -> None:
        self._process = os.urandom(6).hex()
        self._numbers = count(1)

    def make(self) -> str:
        """Return the next id."""
        return f"{self._process}-{next(self._numbers):x}"
