"""`mediarepo init`: writes a first configuration from a few questions, or from a homeserver.yaml."""

import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
import yaml

from mediarepo.app.diagnosis import examine_configuration
from mediarepo.cli.examples import example_files
from mediarepo.cli.first_configuration import Answers, configuration, next_steps, take_over
from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.synapse.config import load_synapse_config
from mediarepo.model.findings import Verdict

_QUESTIONS = {
    "server_name": ("The homeserver's name, as in @user:NAME", ""),
    "host": ("Host name that clients use, if it is another", ""),
    "client_api_url": ("Address of the homeserver itself, behind the proxy", "http://127.0.0.1:8008"),
    "signing_key_file": ("Its signing key (empty: none, nothing is fetched from other servers)", ""),
    "database_url": ("Postgres", "postgresql://mediarepo@127.0.0.1:5432/mediarepo"),
    "endpoint_url": ("Address of the S3 server", "http://127.0.0.1:3900"),
    "region": ("Its region (Garage: garage; many others: us-east-1)", "us-east-1"),
    "bucket": ("The bucket", "media"),
}
_OPTIONAL = frozenset({"host", "signing_key_file"})


def init(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The configuration to write.")] = Path("config.yaml"),
    homeserver_yaml: Annotated[
        list[Path] | None, typer.Option("--homeserver-yaml", help="Synapse's configuration files, in their order.")
    ] = None,
    server_name: Annotated[str, typer.Option(help="The homeserver's name.")] = "",
    host: Annotated[str, typer.Option(help="Host name that clients use.")] = "",
    client_api_url: Annotated[str, typer.Option(help="Address of the homeserver itself.")] = "",
    signing_key_file: Annotated[str, typer.Option(help="Its signing key.")] = "",
    database_url: Annotated[str, typer.Option(help="Postgres, without the password.")] = "",
    endpoint_url: Annotated[str, typer.Option(help="Address of the S3 server.")] = "",
    region: Annotated[str, typer.Option(help="Its region.")] = "",
    bucket: Annotated[str, typer.Option(help="The bucket.")] = "",
    proxy: Annotated[str, typer.Option(help="The example of your proxy.")] = "nginx/mediarepo.conf",
) -> None:
    """Write a first configuration and print the commands that come next; asks for what no option says."""
    given = locals()
    answers = Answers(**{one.name: given[one.name] for one in fields(Answers) if one.name in _QUESTIONS})
    if proxy not in example_files():
        raise _refused(f"there is no example {proxy!r}: see `mediarepo examples`")
    if output.exists():
        raise _refused(f"{output} exists; choose another file with --output")
    notes = _from_synapse(answers, homeserver_yaml) if homeserver_yaml else []
    _ask_for_the_rest(answers)
    _write(output, configuration(answers))
    typer.echo(next_steps(answers, output, proxy))
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    for finding in examine_configuration(output)[1]:
        if finding.verdict is not Verdict.OK:
            typer.echo(f"still to do: {finding.detail}", err=True)
    typer.echo(f"{output} is written; `mediarepo doctor --config {output}` says what is still missing", err=True)


def _from_synapse(answers: Answers, paths: list[Path]) -> list[str]:
    answers.synapse_files = [path.absolute() for path in paths]
    try:
        config = load_synapse_config(paths)
        document = yaml.safe_load(paths[0].read_text(encoding="utf-8")) if paths[0].is_file() else {}
    except (SourceConfigError, OSError, yaml.YAMLError) as exc:
        raise _refused(str(exc)) from exc
    public = document.get("public_baseurl") if isinstance(document, dict) else None
    if isinstance(public, str) and not answers.host and urlsplit(public).hostname not in {None, config.server_name}:
        answers.host = urlsplit(public).netloc
    key = document.get("signing_key_path") if isinstance(document, dict) else None
    base = paths[0].absolute().parent
    return take_over(answers, config, str(base / key) if isinstance(key, str) else None)


def _ask_for_the_rest(answers: Answers) -> None:
    """Ask at a terminal; elsewhere defaults count, and what has none is missing."""
    asking = sys.stdin.isatty() and sys.stderr.isatty()
    for name, (question, default) in _QUESTIONS.items():
        if getattr(answers, name):
            continue
        value = typer.prompt(question, default=default, err=True) if asking else default
        if not value and name not in _OPTIONAL:
            raise _refused(f"--{name.replace('_', '-')} is needed where there is no terminal to ask at")
        setattr(answers, name, value)


def _write(path: Path, text: str) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise _refused(f"{path} cannot be written: {exc.strerror}") from exc


def _refused(message: str) -> typer.Exit:
    typer.echo(f"mediarepo: {message}", err=True)
    return typer.Exit(2)
