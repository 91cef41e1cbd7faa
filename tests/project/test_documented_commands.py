"""Every command line of mediarepo in README and docs exists, with its options."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from mediarepo.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINE = re.compile(r"^(?:    |   |\$ )?(?:/opt/mediarepo/bin/)?(mediarepo [^|>&]*)", re.MULTILINE)
BLOCK = re.compile(r"^ *```(?:sh)?\n(.*?)^ *```|((?:^    .*\n)+)", re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> list[str]:
    """List what stands in code blocks, without comments and what a shell does with it."""
    found = []
    for fenced, indented in BLOCK.findall(text):
        for line in (fenced or indented).splitlines():
            match = LINE.match(line.strip())
            if match is not None:
                found.append(match[1].split("  #")[0].split(" # ")[0].strip())
    return found


DOCUMENTED = sorted({(page.name, line) for page in PAGES for line in command_lines(page.read_text())})


def unknown_in(line: str) -> str | None:
    """Say what a command line has that does not exist; None when there is nothing."""
    command: Any = typer.main.get_command(cli)
    words = shlex.split(line)[1:]
    while words and hasattr(command, "list_commands"):
        if words[0].startswith("-"):
            break
        below = command.get_command(typer.Context(command), words[0])
        if below is None:
            # `import NAME ACTION` names the source first
            below = command.get_command(typer.Context(command), words[1]) if len(words) > 1 else None
            if below is None:
                return words[0]
            words = words[1:]
        command, words = below, words[1:]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
    options = [word for word in words if word.startswith("-") and word != "-"]  # "-" is standard output
    return next((option for option in options if option.split("=")[0] not in known), None)


@pytest.mark.parametrize(("page", "line"), DOCUMENTED, ids=[f"{page}: {line}" for page, line in DOCUMENTED])
def test_a_documented_command_exists_with_its_options(page: str, line: str) -> None:
    assert unknown_in(line) is None, page


def test_what_does_not_exist_is_noticed() -> None:
    assert len(DOCUMENTED) > 25
    assert unknown_in("mediarepo serve --confg x") == "--confg"
    assert unknown_in("mediarepo doctr") == "doctr"
    assert unknown_in("mediarepo doctor stores --config x") is None
