"""The reading of a page as one call, for a process of its own."""

import os
import resource

from mediarepo.model.previews import OEmbed, Page, Preview, PreviewLimits
from mediarepo.previews.composing import compose
from mediarepo.previews.files import compose_file
from mediarepo.previews.oembed import read_oembed
from mediarepo.previews.reading import read_page

CPU_S = 10
"""What one page may cost, in seconds of processor time; pages cost milliseconds."""


def limit_work() -> None:
    """Let this process die when it works too long on what it begins now."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent_s = int(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (spent_s + CPU_S, hard))


def read(body: bytes, url: str, content_type: str | None, max_bytes: int) -> Page | None:
    """Read a page; None when it is a file."""
    limit_work()
    return read_page(body, url=url, content_type=content_type, max_bytes=max_bytes)


def read_embed(body: bytes, url: str, content_type: str | None) -> OEmbed | None:
    """Read an oEmbed answer."""
    limit_work()
    return read_oembed(body, url=url, content_type=content_type)


def make(page: Page, oembed: OEmbed | None, limits: PreviewLimits) -> Preview:
    """Compose a preview."""
    limit_work()
    return compose(page, oembed=oembed, limits=limits)


def make_of_file(url: str, content_type: str | None, upload_name: str | None, limits: PreviewLimits) -> Preview:
    """Compose a preview of a file."""
    return compose_file(url=url, content_type=content_type, upload_name=upload_name, limits=limits)


def begin(memory_bytes: int, parent: int) -> None:
    """Prepare a process: bounded memory, and no life without its parent."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.getppid() != parent:
        os._exit(1)
