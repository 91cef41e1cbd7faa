"""What `mediarepo init` writes and prints: a commented configuration, and the commands that come next."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mediarepo.importers.synapse.config import BucketProvider, SynapseConfig

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptableBucket:
    """A bucket of the old media repository; `prefix` is what its keys begin with, without the last slash."""

    name: str
    endpoint_url: str
    region: str
    bucket: str
    prefix: str


@dataclass(slots=True, kw_only=True)
class Answers:
    """What a first configuration needs to know; `synapse_files` are imported from.

    `copied_key_file` is the homeserver's own key, which only its user can read: `signing_key_file` is a copy.
    """

    server_name: str = ""
    host: str = ""
    client_api_url: str = ""
    signing_key_file: str = ""
    copied_key_file: str = ""
    database_url: str = ""
    endpoint_url: str = ""
    region: str = ""
    bucket: str = ""
    secrets_folder: str = "/etc/mediarepo"
    max_upload_bytes: int | None = None
    url_previews: bool = False
    synapse_files: list[Path] = field(default_factory=list)
    old_buckets: list[AdoptableBucket] = field(default_factory=list)


def take_over(answers: Answers, config: SynapseConfig, key_file: str | None) -> list[str]:
    """Take over what homeserver.yaml says; gives what could not be, in the operator's words."""
    answers.server_name = answers.server_name or config.server_name
    if key_file is not None and not answers.signing_key_file:
        answers.copied_key_file, answers.signing_key_file = key_file, f"{answers.secrets_folder}/signing.key"
    answers.max_upload_bytes, answers.url_previews = config.max_upload_bytes, config.url_preview_enabled
    notes = [
        f"the storage provider {name} is not known: its media are not imported" for name in config.unknown_providers
    ]
    for number, provider in enumerate(config.providers):
        if not isinstance(provider, BucketProvider):
            continue
        address, name = provider.address, f"synapse{number or ''}"
        prefix = provider.prefix.strip("/")
        if address.region is None or not prefix:
            notes.append(
                f"the bucket {address.bucket} is read, and its objects are copied: to leave them in place (adopt), "
                "add it to `stores` with its region and prefix (docs/importing.md)"
            )
            continue
        endpoint = address.endpoint_url or f"https://s3.{address.region}.amazonaws.com"
        answers.old_buckets.append(
            AdoptableBucket(
                name=name, endpoint_url=endpoint, region=address.region, bucket=address.bucket, prefix=prefix
            )
        )
    return notes


_LOG = ["log:", "  # A line for each request, so that what happened to a file can be found out.", "  access: true"]


def configuration(answers: Answers) -> str:
    """Write the configuration as YAML with comments; texts are quoted as JSON, which YAML reads."""
    lines = [
        "# Written by `mediarepo init`. All else has its default; `mediarepo examples config.yaml` shows it.",
        "database:",
        f"  url: {_text(answers.database_url)}",
        "  # The role's password, in a file of its own, so that this file holds no secret.",
        f"  password: {{file: {_text(answers.secrets_folder + '/database-password')}}}",
        "homeservers:",
        "  - # The name in user ids and mxc:// addresses.",
        f"    server_name: {_text(answers.server_name)}",
        "    # Host headers that clients and other servers use besides it.",
        f"    hosts: [{_text(answers.host)}]" if answers.host else "    hosts: []",
        "    # The homeserver's own address, behind the proxy: it says whose access token a request carries.",
        f"    client_api_url: {_text(answers.client_api_url)}",
        "    # The homeserver's signing key: without it, media of other servers cannot be fetched.",
        f"    signing_key_file: {_text(answers.signing_key_file) if answers.signing_key_file else 'null'}",
        f"    url_previews: {str(answers.url_previews).lower()}",
        "stores:",
        "  main:",
        f"    endpoint_url: {_text(answers.endpoint_url)}",
        f"    region: {_text(answers.region)}",
        f"    bucket: {_text(answers.bucket)}",
        f"    access_key_id: {{file: {_text(answers.secrets_folder + '/s3-access-key')}}}",
        f"    secret_access_key: {{file: {_text(answers.secrets_folder + '/s3-secret-key')}}}",
    ]
    return "\n".join([*lines, *_from_synapse(answers), *_LOG, ""])


def _from_synapse(answers: Answers) -> list[str]:
    """Write the sections that a homeserver.yaml gives rise to."""
    lines: list[str] = []
    for old in answers.old_buckets:
        lines += _adopted(old, answers.secrets_folder)
    if answers.max_upload_bytes is not None:
        lines += ["uploads:", "  # Synapse's max_upload_size.", f"  max_bytes: {answers.max_upload_bytes}"]
    if answers.synapse_files:
        names = ", ".join(_text(str(path)) for path in answers.synapse_files)
        lines += [
            "imports:",
            "  # `mediarepo import synapse preflight`, then `run`: Synapse goes on serving, and is only read.",
            "  synapse:",
            "    kind: synapse",
            f"    paths: [{names}]",
            "    # Media that are not imported yet are served from there; remove this line after `finalize`.",
            "    read_through: true",
        ]
    return lines


def _adopted(old: AdoptableBucket, secrets_folder: str) -> list[str]:
    return [
        f"  {old.name}:",
        "    # Synapse's bucket: its objects stay where they are, and nothing is ever written there.",
        f"    endpoint_url: {_text(old.endpoint_url)}",
        f"    region: {_text(old.region)}",
        f"    bucket: {_text(old.bucket)}",
        f"    prefix: {_text(old.prefix)}",
        "    read_only: true",
        f"    access_key_id: {{file: {_text(secrets_folder + f'/{old.name}-access-key')}}}",
        f"    secret_access_key: {{file: {_text(secrets_folder + f'/{old.name}-secret-key')}}}",
    ]


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def next_steps(answers: Answers, config_file: Path, proxy: str) -> str:
    """Write the commands that create role, database, bucket and secrets, and what to do in which order."""
    parts = urlsplit(answers.database_url)
    role, database = unquote(parts.username or "mediarepo"), unquote(parts.path.lstrip("/")) or "mediarepo"
    folder, address = answers.secrets_folder, f"s3 --endpoint-url {answers.endpoint_url} --region {answers.region}"
    moving = [
        "# 4. move in while the homeserver goes on serving",
        f"mediarepo import synapse preflight --config {config_file}",
        f"mediarepo import synapse run --config {config_file}",
    ]
    install = f"install -m 0640 -o root -g mediarepo {answers.copied_key_file} {answers.signing_key_file}"
    return "\n".join(
        [
            "# 0. a user, and a folder that it can read",
            "adduser --system --group --no-create-home mediarepo",
            f"install -d -m 2750 -o root -g mediarepo {folder}",
            *([install] if answers.copied_key_file else []),
            "# 1. role and database (as a superuser of Postgres), with the password of the file",
            f"openssl rand -hex 32 > {folder}/database-password",
            f"psql -c \"CREATE ROLE {role} LOGIN PASSWORD '$(cat {folder}/database-password)'\"",
            f"createdb --owner {role} {database}",
            f"# 2. bucket, and its key in {folder}/s3-access-key and {folder}/s3-secret-key",
            f"aws {address} mb s3://{answers.bucket}",
            "# 3. tables, server, and a look at everything",
            f"chgrp -R mediarepo {folder}",
            f"mediarepo migrate --config {config_file}",
            f"mediarepo serve --config {config_file}      # or the unit: mediarepo examples systemd/mediarepo.service",
            f"mediarepo doctor --config {config_file}",
            *(moving if answers.synapse_files else ["# 4. nothing is imported"]),
            f"# 5. only then the routes, in the server blocks of clients and of federation: mediarepo examples {proxy}",
            f"mediarepo doctor proxy --public https://{answers.host or answers.server_name} --config {config_file}",
            "# 6. at last, switch the homeserver's own media repository off (docs/importing.md)",
            "",
        ]
    )
