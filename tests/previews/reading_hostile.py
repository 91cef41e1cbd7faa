"""Reads one hostile body in a process of its own, under a memory limit, and tells what came of it as JSON."""

import json
import resource
import sys
import time
from pathlib import Path

from mediarepo.model.previews import Page
from mediarepo.previews.build import compose
from mediarepo.previews.oembed import read_oembed
from mediarepo.previews.page import read_page
from tests.previews.hostile_bodies import BODIES

URL = "https://hostile.example/page"


def kib_of(name: str) -> int:
    """Read VmRSS, or the highest it was (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main(name: str, limit_bytes: int) -> None:
    content_type, make = BODIES[name]
    body = make()
    Path("/proc/self/clear_refs").write_text("5")
    before_kib = kib_of("VmRSS")
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    began_s = time.process_time()
    page = read_page(body, url=URL, content_type=content_type)
    oembed = read_oembed(body, url=URL, content_type=content_type)
    preview = compose(page or Page(url=URL), oembed=oembed)
    cpu_s = time.process_time() - began_s
    answer = {
        "values": preview.values,
        "pictures": [picture.url for picture in preview.pictures],
        "cpu_ms": round(cpu_s * 1000),
        "body_bytes": len(body),
        "peak_kib": kib_of("VmHWM") - before_kib,
    }
    sys.stdout.write(json.dumps(answer))


main(sys.argv[1], int(sys.argv[2]))
