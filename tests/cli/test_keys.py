from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mediarepo.cli.main import cli
from mediarepo.federation.key_files import read_keys
from mediarepo.federation.signing import encode_base64

SEED = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"
PUBLIC = "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"


def keys(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["keys", *map(str, arguments)])


@pytest.fixture
def synapse_key(tmp_path: Path) -> Path:
    path = tmp_path / "signing.key"
    path.write_text(f"ed25519 1 {SEED}\n")
    return path


@pytest.mark.parametrize("key_format", ["synapse", "dendrite", "matrix-media-repo"])
def test_a_new_key_is_for_its_owners_eyes_only_and_never_overwritten(tmp_path: Path, key_format: str) -> None:
    path = tmp_path / "our.key"

    made = keys("generate", "--output", path, "--format", key_format, "--key-id", "media_1")
    again = keys("generate", "--output", path)
    forced = keys("generate", "--output", path, "--force")

    assert (made.exit_code, again.exit_code, forced.exit_code) == (0, 1, 0)
    assert "ed25519:media_1" in made.stdout
    assert "--force" in again.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(read_keys(path)) == 1


def test_show_tells_the_public_half_only(synapse_key: Path) -> None:
    shown = keys("show", synapse_key)

    assert shown.stdout == f"ed25519:1 {PUBLIC}  (signs)\n"
    assert SEED not in shown.stdout


def test_keys_survive_the_way_to_dendrite_and_back(synapse_key: Path, tmp_path: Path) -> None:
    pem, back = tmp_path / "matrix_key.pem", tmp_path / "back.key"

    assert keys("convert", synapse_key, "--to", "dendrite", "--output", pem).exit_code == 0
    assert keys("convert", pem, "--to", "synapse", "--output", back).exit_code == 0

    assert pem.read_text().startswith("-----BEGIN MATRIX PRIVATE KEY-----\nKey-ID: ed25519:1\n\n")
    assert read_keys(back) == read_keys(synapse_key)


MMR_KEYS = """-----BEGIN MMR PRIVATE KEY-----
Key-ID: ed25519:e5d0oC
Version: 1

PJt0OaIImDJk8P/PDb4TNQHgI/1AA1C+AaQaABxAcgc=
-----END MMR PRIVATE KEY-----
-----BEGIN MMR PRIVATE KEY-----
Key-ID: ed25519:CjtBYA
Version: 1

Xj/gSXAtSOTPG54sAWjm9BMVNX/Pa8ujIzwYbvLk7mM=
-----END MMR PRIVATE KEY-----
"""


def test_keys_of_matrix_media_repo_are_read_and_survive_the_way_to_synapse_and_back(tmp_path: Path) -> None:
    theirs, line, back = tmp_path / "mmr.key", tmp_path / "signing.key", tmp_path / "back.key"
    theirs.write_text(MMR_KEYS)

    assert keys("convert", theirs, "--to", "synapse", "--output", line).exit_code == 0
    assert keys("convert", line, "--to", "matrix-media-repo", "--output", back).exit_code == 0

    assert line.read_text().startswith("ed25519 e5d0oC PJt0OaIImDJk8P/PDb4TNQHgI/1AA1C+AaQaABxAcgc\n")
    assert back.read_text() == MMR_KEYS


def test_a_later_version_of_matrix_media_repos_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mmr.key"
    path.write_text(MMR_KEYS.replace("Version: 1", "Version: 2"))

    assert (keys("show", path).exit_code, "version 2" in keys("show", path).stderr) == (1, True)


def test_the_homeservers_own_key_goes_on_signing_after_a_merge(synapse_key: Path, tmp_path: Path) -> None:
    ours, both = tmp_path / "our.key", tmp_path / "both.key"
    keys("generate", "--output", ours, "--key-id", "media")

    merged = keys("merge", synapse_key, ours, "--output", both)
    twice = keys("merge", both, ours)

    assert merged.exit_code == 0
    assert [key.key_id for key in read_keys(both)] == ["ed25519:1", "ed25519:media"]
    assert encode_base64(read_keys(both)[0].public_key) == PUBLIC
    assert (twice.exit_code, "same id" in twice.stderr) == (1, True)


@pytest.mark.parametrize(
    "content",
    ["", "no key", "ed25519 1 short", "rsa 1 " + SEED, "-----BEGIN MATRIX PRIVATE KEY-----\nAAAA\n-----END", "\0\xff"],
)
def test_what_is_no_key_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.key"
    path.write_text(content)

    for command in (("show", path), ("convert", path, "--to", "dendrite")):
        result = keys(*command)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "broken.key" in result.stderr
    assert keys("show", tmp_path / "absent").exit_code == 1
    assert keys("generate", "--key-id", "not valid!").exit_code == 1
