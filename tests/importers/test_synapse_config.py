import importlib
import inspect
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.importers.errors import SourceConfigError
from mediarepo.importers.readers.database_address import (
    PostgresAddress,
    SqliteAddress,
    parse_conninfo,
    postgres_address,
)
from mediarepo.importers.readers.source_bucket import Bucket
from mediarepo.importers.synapse.config import (
    BucketProvider,
    FolderProvider,
    SynapseConfig,
    load_synapse_config,
    parse_synapse_config,
)

EXAMPLES = Path(__file__).parents[1] / "fixtures/imports"
BASE = Path("/srv/synapse")


def parsed(**document: Any) -> SynapseConfig:
    return parse_synapse_config({"server_name": "a.test", **document}, base=BASE)


def connection_of(address: object) -> tuple[Any, Any]:
    """Ask asyncpg itself what it makes of an address; there is no public way to."""
    assert isinstance(address, PostgresAddress)
    parse = importlib.import_module("asyncpg.connect_utils")._parse_connect_arguments
    nothing = dict.fromkeys(inspect.signature(parse).parameters)
    numbers = {name: 0 for name in nothing if name.startswith(("statement_", "max_"))}
    given = {"dsn": address.dsn, "server_settings": dict(address.settings) or None}
    addresses, parameters, *_ = parse(**{**nothing, **numbers, **given})
    return addresses, parameters


def test_the_real_configuration_on_postgres_and_s3_is_read() -> None:
    config = load_synapse_config([EXAMPLES / "homeserver.pg-s3.example.yaml"])

    addresses, parameters = connection_of(config.database)
    assert addresses == [("127.0.0.1", 15432)]
    assert (parameters.user, parameters.password, parameters.database) == ("syn", "p@ss/w:rd", "synapse_a")
    assert config.server_name == "localhost:18458"
    assert config.media_store_path == Path("/srv/synapse/media_store")
    (provider,) = config.providers
    assert isinstance(provider, BucketProvider)
    assert provider.prefix == "matrix/media/"
    assert provider.address.bucket == "synmedia"
    assert provider.address.endpoint_url == "http://127.0.0.1:15555"
    assert (provider.address.access_key_id, provider.address.secret_access_key) == ("k", "s")
    assert Bucket(provider.address).address.bucket == "synmedia"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1))
def test_any_password_arrives(password: str) -> None:
    address = postgres_address({"user": "syn", "host": "db", "database": "synapse", "password": password})

    assert connection_of(address)[1].password == password
    assert repr(address) == repr(postgres_address({"user": "syn", "host": "db", "database": "synapse", "password": ""}))


def test_unix_sockets_and_tls_are_understood(tmp_path: Path) -> None:
    socket = postgres_address({"host": "/var/run/postgresql", "port": 5433, "user": "syn", "dbname": "synapse"})
    assert connection_of(socket)[0] == ["/var/run/postgresql/.s.PGSQL.5433"]

    strict = postgres_address({"host": "db", "user": "syn", "database": "x", "sslmode": "require", "cp_max": 3})
    assert connection_of(strict)[1].ssl is not None
    off = postgres_address({"host": "db", "user": "syn", "database": "x", "sslmode": "disable"})
    assert not connection_of(off)[1].ssl
    with pytest.raises((FileNotFoundError, asyncpg.ClientConfigurationError)):
        connection_of(
            postgres_address({"host": "db", "sslmode": "verify-full", "sslrootcert": str(tmp_path / "none.crt")})
        )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("host=db port=5432 dbname=syn", {"host": "db", "port": "5432", "dbname": "syn"}),
        (r"password='it\'s \\ so' user = 'a b'", {"password": "it's \\ so", "user": "a b"}),
        ("  ", {}),
        ("password=''", {"password": ""}),
        (
            "postgresql://us%40er:p%2Fw@[::1]:5433/da%20ta?sslmode=require",
            {
                "host": "::1",
                "port": "5433",
                "user": "us@er",
                "password": "p/w",
                "dbname": "da ta",
                "sslmode": "require",
            },
        ),
        ("postgres:///syn?host=/run/pg", {"dbname": "syn", "host": "/run/pg"}),
    ],
)
def test_connection_strings_are_read_as_libpq_does(text: str, parts: dict[str, str]) -> None:
    assert parse_conninfo(text) == parts


@pytest.mark.parametrize("text", ["host", "host=db =x", "password='open", "postgres://db:port/x"])
def test_other_connection_strings_are_refused(text: str) -> None:
    with pytest.raises(SourceConfigError):
        parse_conninfo(text)


def test_a_dsn_gives_way_to_what_stands_beside_it() -> None:
    address = postgres_address({"dsn": "host=old user=syn dbname=x", "host": "new", "options": "-c search_path=syn"})

    addresses, parameters = connection_of(address)
    assert addresses == [("new", 5432)]
    assert parameters.server_settings == {"search_path": "syn"}


def test_later_files_replace_what_earlier_ones_said(tmp_path: Path) -> None:
    (tmp_path / "homeserver.yaml").write_text("server_name: a.test\nmedia_store_path: /one\nmax_upload_size: 10M")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/b.yaml").write_text("media_store_path: /three")
    (tmp_path / "conf.d/a.yaml").write_text("media_store_path: /two\nunused_expiration_time: 2h")
    (tmp_path / "conf.d/c.txt").write_text("media_store_path: /never")
    (tmp_path / "conf.d/empty.yaml").write_text("")

    config = load_synapse_config([tmp_path / "homeserver.yaml", tmp_path / "conf.d"])

    assert config.media_store_path == Path("/three")
    assert config.unused_expiration_ms == 7_200_000
    assert config.max_upload_bytes == 10 * 1024 * 1024


def test_what_is_not_said_has_synapses_defaults(tmp_path: Path) -> None:
    (tmp_path / "homeserver.yaml").write_text("server_name: a.test")

    config = load_synapse_config([tmp_path / "homeserver.yaml"])

    assert config.database == SqliteAddress(tmp_path / "homeserver.db")
    assert config.media_store_path == tmp_path / "media_store"
    assert config.unused_expiration_ms == 86_400_000
    assert config.media_repo_enabled
    assert config.providers == ()


def test_the_main_one_of_several_databases_is_chosen() -> None:
    config = parsed(
        databases={
            "state": {"name": "psycopg2", "args": {"database": "state"}, "data_stores": ["state"]},
            "main": {"name": "psycopg2", "args": {"database": "media", "user": "u"}, "data_stores": ["main"]},
        }
    )

    assert connection_of(config.database)[1].database == "media"
    with pytest.raises(SourceConfigError, match="no main"):
        parsed(databases={"state": {"name": "psycopg2"}})


def test_folders_and_buckets_keep_their_order() -> None:
    config = parsed(
        media_storage_providers=[
            {"module": "file_system", "config": {"directory": "/second"}},
            {
                "module": "s3_storage_provider.S3StorageProviderBackend",
                "config": {"bucket": "b", "prefix": "media", "sse_customer_key": "k" * 32, "region_name": "eu"},
            },
            {
                "module": "synapse.rest.media.v1.storage_provider.FileStorageProviderBackend",
                "config": {"directory": "c"},
            },
            {"module": "gcs.Provider", "config": {}},
        ],
        backup_media_store_path="/backup",
        enable_media_repo=False,
    )

    first, second, third, fourth = config.providers
    assert first == FolderProvider(Path("/second"))
    assert isinstance(second, BucketProvider)
    assert (second.prefix, second.address.customer_key, second.address.customer_algorithm) == (
        "media",
        "k" * 32,
        "AES256",
    )
    assert third == FolderProvider(BASE / "c")
    assert fourth == FolderProvider(Path("/backup"))
    assert config.unknown_providers == ("gcs.Provider",)
    assert not config.media_repo_enabled
    assert "k" * 32 not in repr(config)


@pytest.mark.parametrize(
    "document",
    [
        {"server_name": None},
        {"database": {"name": "oracle"}},
        {"database": "sqlite"},
        {"media_storage_providers": {"module": "x"}},
        {"media_storage_providers": ["x"]},
        {"media_storage_providers": [{"module": "file_system", "config": {}}]},
        {"media_storage_providers": [{"module": "s3_storage_provider.S3StorageProviderBackend", "config": {}}]},
        {"max_upload_size": "fifty"},
        {"unused_expiration_time": "1 fortnight"},
    ],
)
def test_what_cannot_be_meant_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(SourceConfigError):
        parsed(**document)


@pytest.mark.parametrize("text", ["- a list", "a: b: c", "\x00"])
def test_files_that_are_no_configuration_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "homeserver.yaml").write_text(text)

    with pytest.raises(SourceConfigError):
        load_synapse_config([tmp_path / "homeserver.yaml"])


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(SourceConfigError, match="No such file"):
        load_synapse_config([tmp_path / "homeserver.yaml"])
    with pytest.raises(SourceConfigError, match="no configuration file"):
        load_synapse_config([])


@given(
    st.dictionaries(
        st.sampled_from(["server_name", "database", "media_storage_providers", "max_upload_size"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    document = yaml.safe_load(yaml.safe_dump(document))
    with suppress(SourceConfigError):
        assert parse_synapse_config(document, base=BASE).server_name
