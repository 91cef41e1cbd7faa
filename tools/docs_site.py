"""Hooks of MkDocs: adds the pages that are made of the code, and the files of the repository that pages link to.

A link that leaves docs/ (`../config.yaml`, `../SECURITY.md`) leads to a copy of that file inside the site.
"""

import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mkdocs.structure.files import File  # noqa: E402 - the path above comes first

from mediarepo.web.admin.api.endpoint_table import ENDPOINTS  # noqa: E402 - as above
from mediarepo.web.admin.api.openapi import openapi_document  # noqa: E402 - as above
from tools.reference_pages import PAGES  # noqa: E402 - as above

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
PAGES_OF_THE_PROJECT = ("SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")
MERMAID = ROOT / "build" / "mermaid.min.js"


def on_config(config: Any) -> Any:  # noqa: ANN401 - as MkDocs has it
    """Serve Mermaid from the site where it was fetched; Material takes it from elsewhere otherwise."""
    if MERMAID.exists():
        config["extra_javascript"] = ["assets/mermaid.min.js", *config["extra_javascript"]]
    return config


def on_files(files: Any, config: Any) -> Any:  # noqa: ANN401 - as MkDocs has it
    """Add what is no file below docs/."""
    pages = {name: write() for name, write in PAGES.items() if files.get_file_from_path(name) is None}
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    for name in PAGES_OF_THE_PROJECT:
        files.append(File.generated(config, name, content=(ROOT / name).read_text()))
    document = json.dumps(openapi_document(ENDPOINTS), indent=2)
    files.append(File.generated(config, "openapi.json", content=document))
    if MERMAID.exists():
        files.append(File.generated(config, "assets/mermaid.min.js", content=MERMAID.read_bytes()))
    for name in linked_files():
        files.append(File.generated(config, name, content=(ROOT / name).read_bytes()))
    return files


def linked_files() -> set[str]:
    """Name the files outside docs/, no pages, that pages link to."""
    found = {"config.yaml"}
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        folder = page.parent.relative_to(ROOT).as_posix()
        for _, target, _ in LINK.findall(page.read_text()):
            place = posixpath.normpath(posixpath.join(folder, target))
            if "://" not in target and not place.startswith(("docs/", "..")) and (ROOT / place).is_file():
                found.add(place)
    return {name for name in found if not name.endswith(".md")}


def section_of_readme(title: str) -> str:
    """Return a section of README.md, one level deeper, with its links as seen from docs/."""
    text = (ROOT / "README.md").read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    text = re.sub(r"(?m)^ {3}", "    ", text)  # what belongs to a step: Python-Markdown wants four spaces
    return re.sub(r"\]\((?![a-z]+:|#)([^)]+)\)", r"](../\1)", text).replace("](../docs/", "](")


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:  # noqa: ANN401 - as MkDocs has it
    """Turn links out of docs/ into links to the copies."""
    markdown = re.sub(r"<!-- README\.md: (.+) -->", lambda found: section_of_readme(found[1]), markdown)
    at_root = page.file.src_uri in PAGES_OF_THE_PROJECT
    folder = "" if at_root else posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def moved(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        place = posixpath.normpath(posixpath.join(folder, target))
        inside = place.removeprefix("docs/")
        if place == "README.md":
            inside = "index.md"
        elif (ROOT / place).is_dir():
            inside = f"{inside}/0001-dependencies.md" if inside == "adr" else ""
        if not inside:
            return words
        here = posixpath.dirname(page.file.src_uri)
        return f"[{words}]({posixpath.relpath(inside, here or '.')}{anchor})"

    return LINK.sub(moved, markdown)
