"""Signing keys out of the databases of Conduit and Tuwunel, in the form in which they write them."""

import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mediarepo.cli.main import cli
from mediarepo.federation.key_files import KeyFileError, parse_keypair, read_keys
from mediarepo.federation.signing import KEY_BYTES, SigningKey

SEED = bytes(range(KEY_BYTES))
KEY = SigningKey("ed25519:aBcD1234", SEED)


def pkcs8(*, with_public: bool, public: bytes = KEY.public_key) -> bytes:
    """PKCS#8 as OpenSSL writes it; with the public half (RFC 5958) as ring does, which both servers use."""
    plain = Ed25519PrivateKey.from_private_bytes(SEED).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    if not with_public:
        return plain
    body = b"\x02\x01\x01" + plain[5:] + bytes.fromhex("a123032100") + public
    return b"\x30" + bytes([len(body)]) + body


def record(der: bytes, version: bytes = b"aBcD1234") -> bytes:
    return version + b"\xff" + der


@pytest.mark.parametrize("with_public", [True, False])
def test_a_record_holds_version_and_seed(with_public: bool) -> None:
    assert parse_keypair(record(pkcs8(with_public=with_public))) == KEY


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not a version"),
        (b"aBcD1234", "not a version"),
        (record(b""), "not a version"),
        (record(pkcs8(with_public=False)[:-1]), "not a version"),
        (record(pkcs8(with_public=True), b"not a version"), "cannot be used"),
        (record(pkcs8(with_public=True), b"caf\xc3\xa9"), "cannot be used"),
        (record(pkcs8(with_public=True, public=bytes(32))), "does not belong"),
    ],
)
def test_what_is_no_such_record_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(KeyFileError, match=words):
        parse_keypair(raw)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_key_or_refused(raw: bytes) -> None:
    try:
        key = parse_keypair(raw)
    except KeyFileError:
        return
    assert len(key.seed) == KEY_BYTES


def sqlite_database(folder: Path) -> None:
    folder.mkdir()
    with sqlite3.connect(folder / "conduit.db") as connection:
        connection.execute('CREATE TABLE "global" (key BLOB PRIMARY KEY, value BLOB)')
        connection.execute('INSERT INTO "global" VALUES (?, ?)', (b"version", b"17"))
        connection.execute('INSERT INTO "global" VALUES (?, ?)', (b"keypair", record(pkcs8(with_public=True))))
    connection.close()


def rocksdb_database(folder: Path) -> None:
    rocksdict = pytest.importorskip("rocksdict")
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    writer = rocksdict.Rdict(str(folder), options, column_families={"default": options, "global": options})
    writer.get_column_family("global")[b"keypair"] = record(pkcs8(with_public=True))
    writer.close()


@pytest.mark.parametrize("make", [sqlite_database, rocksdb_database])
@pytest.mark.parametrize("by", ["folder", "configuration"])
def test_a_key_is_taken_out_of_a_database(tmp_path: Path, make: object, by: str) -> None:
    assert callable(make)
    make(tmp_path / "db")
    (tmp_path / "server.toml").write_text('[global]\nserver_name = "a.test"\ndatabase_path = "db"\n')
    path = tmp_path / ("db" if by == "folder" else "server.toml")

    done = CliRunner().invoke(cli, ["keys", "extract", str(path), "--output", str(tmp_path / "signing.key")])

    assert done.exit_code == 0, done.output
    assert read_keys(tmp_path / "signing.key") == [KEY]
    assert (tmp_path / "signing.key").stat().st_mode & 0o777 == 0o600


def test_a_database_without_a_key_is_told_in_one_line(tmp_path: Path) -> None:
    sqlite_database(tmp_path / "db")
    with sqlite3.connect(tmp_path / "db" / "conduit.db") as connection:
        connection.execute("DELETE FROM global WHERE key = ?", (b"keypair",))
    connection.close()
    (tmp_path / "empty").mkdir()

    without = CliRunner().invoke(cli, ["keys", "extract", str(tmp_path / "db")])
    nothing = CliRunner().invoke(cli, ["keys", "extract", str(tmp_path / "empty")])

    assert (without.exit_code, "has no signing key" in without.stderr) == (1, True)
    assert (nothing.exit_code, nothing.stderr.count("\n")) == (1, 1)
