"""A package index on the loopback, which holds a newer version of everything too."""

import hashlib
import re
import ssl
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import Distribution
from pathlib import Path
from threading import Thread
from urllib.parse import urljoin

NEWER = "9999.0"
_LEFT_OUT = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def repacked(distribution: Distribution, folder: Path) -> Path:
    """Make a wheel of what is installed; its bytes differ from the published one's."""
    name, version = distribution.name.replace("-", "_"), distribution.version
    tags = re.findall(r"^Tag: (\S+)-(\S+)-(\S+)", distribution.read_text("WHEEL") or "", re.MULTILINE)
    tag = "-".join(".".join(sorted(set(part))) for part in zip(*tags, strict=True))
    wheel = folder / f"{name}-{version}-{tag}.whl"
    generated = {point.name for point in distribution.entry_points if point.group == "console_scripts"}
    record = ""
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in distribution.files or ():
            inside = str(file)
            if file.parts[0] == "..":
                inside = f"{name}-{version}.data/scripts/{file.name}"
            if file.name in _LEFT_OUT or file.suffix == ".pyc" or (inside != str(file) and file.name in generated):
                continue
            info = next((part for part in file.parts if part.endswith(".dist-info")), None)
            inside = inside.replace(info, f"{name}-{version}.dist-info") if info else inside
            archive.write(file.locate(), inside)
            record += f"{inside},,\n"
        archive.writestr(f"{name}-{version}.dist-info/RECORD", f"{record}{name}-{version}.dist-info/RECORD,,\n")
    return wheel


def newer(name: str) -> str:
    return f'<a href="/files/{name.replace("-", "_")}-{NEWER}-py3-none-any.whl">newer</a>'


def folder_pages(wheels: Path) -> Callable[[str], str]:
    """Pages of an index that holds the wheels of a folder."""

    def page(name: str) -> str:
        return "".join(
            f'<a href="/files/{wheel.name}#sha256={hashlib.sha256(wheel.read_bytes()).hexdigest()}">{wheel.name}</a>'
            for wheel in wheels.glob("*.whl")
            if normalized(wheel.name.partition("-")[0]) == name
        )

    return page


def forwarded_pages(upstream: str) -> Callable[[str], str]:
    """Pages of the index that this machine uses anyway, whose files are taken from there."""
    context = ssl.create_default_context()

    def page(name: str) -> str:
        address = f"{upstream.rstrip('/')}/{name}/"
        request = urllib.request.Request(address, headers={"Accept": "text/html"})  # noqa: S310 - pip's own index
        with urllib.request.urlopen(request, context=context, timeout=120) as answer:  # noqa: S310 - as above
            text = str(answer.read().decode())
        return re.sub(r'href="([^"]*)"', lambda found: f'href="{urljoin(address, found.group(1))}"', text)

    return page


@contextmanager
def package_index(page: Callable[[str], str], files: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve pages, each with a newer version added; gives the index's address and the files that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, kind, name, *_ = self.path.split("/")
            body = b""
            if kind == "simple":
                body = f"<!DOCTYPE html><html><body>{page(name)}{newer(name)}</body></html>".encode()
            if kind == "files":
                asked.append(name)
                body = (files / name).read_bytes() if (files / name).exists() else b"newer"
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if kind == "simple" else "application/zip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple", asked
        finally:
            server.shutdown()
            thread.join()
