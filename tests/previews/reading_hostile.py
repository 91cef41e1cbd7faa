"""Reads one hostile body in a process of its own, under a memory limit, and tells what came of it as JSON."""

import json
import resource
import sys
import time

from mediarepo.model.previews import Page
from mediarepo.previews.composing import compose
from mediarepo.previews.oembed import read_oembed
from mediarepo.previews.reading import read_page
from tests.previews.hostile_bodies import BODIES

URL = "https://hostile.example/page"


def main(name: str, limit_bytes: int) -> None:
    content_type, make = BODIES[name]
    body = make()
    made_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
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
        "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - made_kib,
    }
    sys.stdout.write(json.dumps(answer))


main(sys.argv[1], int(sys.argv[2]))
