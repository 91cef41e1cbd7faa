"""The command line's manners: help, suggestions, completion, the manual, and errors in one line."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from mediarepo.cli.main import cli
from mediarepo.cli.manual import manual_page
from mediarepo.cli.permissions import COMMANDS
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.installation import document_for

COMMAND = [sys.executable, "-m", "mediarepo"]
PLAIN = {"TERM": "dumb", "COLUMNS": "200", "NO_COLOR": "1"}


def ran(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        check=False,
        env={**os.environ, **PLAIN, **environment},
    )


@pytest.mark.parametrize("arguments", [["-h"], ["doctor", "-h"], ["serve", "-h"], ["import", "run", "-h"]])
def test_help_has_a_short_form(arguments: list[str]) -> None:
    done = ran(*arguments)

    assert (done.returncode, "Usage: mediarepo" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serv"], "Did you mean 'serve'"),
        (["check_config"], "Did you mean 'check-config'"),
        (["doctor", "stors"], "Did you mean 'store"),
        (["media", "inf"], "Did you mean 'info'"),
    ],
)
def test_a_misspelt_command_is_refused_with_the_right_one(arguments: list[str], words: str) -> None:
    done = ran(*arguments)

    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_what_is_no_command_at_all_is_refused_without_a_suggestion() -> None:
    done = ran("xyzzy")

    assert "No such command 'xyzzy'." in done.stderr
    assert "Did you mean" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["dev", "--listen", "foo"],
        ["dev", "--listen", "127.0.0.1:80000"],
        ["migrate", "--to", "nosuch"],
        ["migrate", "--down", "--to", "nosuch", "--yes"],
        ["serve", "--config", "/"],
        ["doctor", "--config", "/nonexistent"],
        ["keys", "show", "/nonexistent"],
    ],
)
async def test_nothing_that_is_typed_gives_a_traceback(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document_for(postgres, s3)))
    if "--down" in arguments:
        assert ran("migrate", cwd=tmp_path).returncode == 0

    done = ran(*arguments, cwd=tmp_path)

    assert done.returncode in {1, 2}
    assert "Traceback" not in done.stderr + done.stdout


def test_the_version_names_the_commit_of_a_checkout() -> None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no checkout")
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=root, text=True).strip()

    assert re.fullmatch(rf"mediarepo \S+ \(commit {commit[:12]}\)\n", ran("--version").stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed_and_nothing_is_written(shell: str, tmp_path: Path) -> None:
    done = ran("completion", shell, HOME=str(tmp_path))

    assert done.returncode == 0
    assert "_MEDIAREPO_COMPLETE" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_no_command_edits_the_files_of_a_shell(tmp_path: Path) -> None:
    text = "\n".join(manual_page(typer.main.get_command(cli)))
    done = ran("serve", "--install-completion", HOME=str(tmp_path), SHELL="/bin/bash")

    assert "completion" not in text.replace("mediarepo completion", "").replace("the completion script", "")
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_other_shells_are_refused() -> None:
    assert ran("completion", "tcsh").returncode == 2


def test_a_real_bash_completes_commands_and_options(tmp_path: Path) -> None:
    (tmp_path / "mediarepo").write_text(f'#!/bin/sh\nexec {sys.executable} -m mediarepo "$@"\n')
    (tmp_path / "mediarepo").chmod(0o755)
    script = """
        eval "$(mediarepo completion bash)"
        ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mediarepo_completion mediarepo; echo "${COMPREPLY[*]}"; }
        ask mediarepo che; ask mediarepo doctor st; ask mediarepo sweep --conf
    """
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, **PLAIN, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )

    assert done.stdout.splitlines() == ["check-config", "stores store", "--config"]


def test_the_manual_names_every_command_and_is_roff_without_a_warning() -> None:
    text = "\n".join(manual_page(typer.main.get_command(cli)))

    for name in COMMANDS:
        assert f"mediarepo {name}".replace("-", r"\-") in text
    assert not re.search(r"(?m)^\.(?![A-Z]{1,2}\b)", text)
    if shutil.which("groff") is not None:
        done = subprocess.run(
            ["groff", "-man", "-Tascii", "-ww"], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stderr == ""
