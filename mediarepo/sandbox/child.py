"""The child side of a sandboxed process: load the code, enter the sandbox, run jobs until told to stop."""

import json
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from mediarepo.sandbox.confinement import allow_cpu_seconds, confine, die_with_parent, limit_cpu_seconds

MESSAGE_BYTES = 64 * 1024

Answer = Callable[[dict[str, Any], int, int], dict[str, Any]]
"""Does one job: its JSON object, the descriptors of source and result; must not raise what a hostile input causes."""


def run(load: Callable[[dict[str, Any]], Answer]) -> None:
    """Serve jobs on the socket of the command line, until the server closes its end.

    `load` gets the settings of the command line and returns the job handler. It must load all code and data that jobs
    need: nothing can be opened afterwards.
    """
    channel = socket.socket(fileno=int(sys.argv[1]))
    parent, settings = int(sys.argv[2]), json.loads(sys.argv[3])
    die_with_parent(parent)
    for number in (signal.SIGTERM, signal.SIGINT):  # sent to all processes at a stop; the server says when we end
        signal.signal(number, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    answer = load(settings)
    limit_cpu_seconds(settings["max_jobs"] * (settings["cpu_limit_s"] + 1))
    confinement = confine(settings["memory_bytes"], parent, threads=settings["threads"])
    channel.sendmsg([json.dumps(asdict(confinement)).encode()])
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 2)
        if not message:
            return
        allow_cpu_seconds(settings["cpu_limit_s"])
        try:
            told = answer(json.loads(message), descriptors[0], descriptors[1])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        channel.sendmsg([json.dumps(told).encode()])


def read_all(source: int) -> bytes:
    """Read a job's whole source."""
    size, pieces, at = os.fstat(source).st_size, list[bytes](), 0
    while at < size:
        pieces.append(os.pread(source, size - at, at))
        at += len(pieces[-1])
    return b"".join(pieces)
