"""`mediarepo keys`: generates, shows, converts and merges signing keys."""

import os
from pathlib import Path
from typing import Annotated

import typer

from mediarepo.federation.key_files import KeyFileError, KeyFormat, parse_keypair, read_keys, write_keys
from mediarepo.federation.signing import SigningKey, encode_base64, new_signing_key
from mediarepo.importers.errors import SourceError
from mediarepo.importers.key_value.keypair import read_keypair

keys_cli = typer.Typer(help="Generate, show, convert and merge signing keys.", no_args_is_help=True)

Output = Annotated[Path | None, typer.Option("--output", "-o", help="The file to write; default: standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")]


@keys_cli.command()
def generate(
    output: Output = None,
    key_format: Annotated[KeyFormat, typer.Option("--format", help="The file format.")] = KeyFormat.SYNAPSE,
    version: Annotated[str | None, typer.Option("--key-id", help='The part after "ed25519:"; default: random.')] = None,
    force: Force = False,
) -> None:
    """Generate a new key."""
    try:
        key = new_signing_key(None if version is None else version.removeprefix("ed25519:"))
    except ValueError as exc:
        raise _failed(str(exc)) from exc
    _write([key], key_format, output, force=force)


@keys_cli.command()
def show(
    file: Annotated[Path, typer.Argument(help="signing.key, matrix_key.pem, or matrix-media-repo's key.")],
) -> None:
    """Show key ids and public keys, never the secret."""
    for number, key in enumerate(_read(file)):
        signs = "  (signs)" if number == 0 else ""
        typer.echo(f"{key.key_id} {encode_base64(key.public_key)}{signs}")


@keys_cli.command()
def convert(
    file: Annotated[Path, typer.Argument(help="signing.key, matrix_key.pem, or matrix-media-repo's key.")],
    to: Annotated[KeyFormat, typer.Option("--to", help="The file format.")],
    output: Output = None,
    force: Force = False,
) -> None:
    """Convert keys to another homeserver's file format."""
    _write(_read(file), to, output, force=force)


@keys_cli.command()
def merge(
    homeserver_key: Annotated[
        Path, typer.Argument(help="The homeserver's own key file; its first key stays the one that signs.")
    ],
    our_key: Annotated[Path, typer.Argument(help="The key that the homeserver should publish as well.")],
    output: Output = None,
    force: Force = False,
) -> None:
    """Append our key to the homeserver's, in Synapse's format: Synapse publishes all keys of its file."""
    keys = [*_read(homeserver_key), *_read(our_key)]
    if len({key.key_id for key in keys}) != len(keys):
        raise _failed("both files have a key of the same id: make another one with --key-id")
    _write(keys, KeyFormat.SYNAPSE, output, force=force)


@keys_cli.command()
def extract(
    path: Annotated[Path, typer.Argument(help="conduit.toml or tuwunel.toml, or the folder of the database.")],
    key_format: Annotated[KeyFormat, typer.Option("--format", help="The file format.")] = KeyFormat.SYNAPSE,
    output: Output = None,
    force: Force = False,
) -> None:
    """Take the signing key out of a Conduit's or Tuwunel's database, which is only read and may be in use."""
    try:
        key = parse_keypair(read_keypair(path))
    except (SourceError, KeyFileError) as exc:
        raise _failed(str(exc)) from exc
    _write([key], key_format, output, force=force)


def _read(path: Path) -> list[SigningKey]:
    try:
        return read_keys(path)
    except KeyFileError as exc:
        raise _failed(str(exc)) from exc


def _write(keys: list[SigningKey], key_format: KeyFormat, output: Path | None, *, force: bool) -> None:
    """Write a file that only its owner can read, or to standard output."""
    try:
        text = write_keys(keys, key_format)
    except KeyFileError as exc:
        raise _failed(str(exc)) from exc
    if output is None:
        typer.echo(text, nl=False)
        return
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(output, flags, 0o600), "w", encoding="ascii") as file:
            file.write(text)
        output.chmod(0o600)
    except FileExistsError as exc:
        raise _failed(f"{output} exists; use --force to overwrite it") from exc
    except OSError as exc:
        raise _failed(f"{output} cannot be written: {exc.strerror}") from exc
    typer.echo(f"{output}: {', '.join(key.key_id for key in keys)}")


def _failed(message: str) -> typer.Exit:
    typer.echo(f"mediarepo: {message}", err=True)
    return typer.Exit(1)
