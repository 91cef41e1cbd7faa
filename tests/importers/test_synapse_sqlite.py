import hashlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mediarepo.importers.readers.database_address import SqliteAddress
from mediarepo.importers.source import Source
from mediarepo.importers.synapse.config import SynapseConfig, load_synapse_config
from mediarepo.importers.synapse.source import SynapseSource
from mediarepo.model.import_source import MediaKind, ResolutionState, SourceItem, SourceKey, SourceMedia, UnclaimedBytes

NOW_MS = 1_795_410_000_000


def source_of(store: Path, **overrides: Any) -> SynapseSource:
    config = SynapseConfig(
        server_name="fix.test",
        database=SqliteAddress(store / "homeserver.db"),
        media_store_path=store / "media_store",
        **overrides,
    )
    return SynapseSource(config, now_ms=lambda: NOW_MS)


@pytest.fixture
async def source(sqlite_store: Path) -> AsyncIterator[SynapseSource]:
    async with source_of(sqlite_store) as source:
        yield source


async def all_located(source: Source) -> tuple[dict[str, SourceItem], list[UnclaimedBytes]]:
    found, orphans = {}, []
    async for met in source.located():
        if isinstance(met, UnclaimedBytes):
            orphans.append(met)
        else:
            found[met.media.media_id] = met
    return found, orphans


def change(store: Path, *statements: str) -> None:
    connection = sqlite3.connect(store / "homeserver.db")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_source_is_a_source(source: SynapseSource) -> None:
    general: Source = source

    assert general.name == "synapse"


async def test_every_row_comes_once_in_the_order_of_keys(source: SynapseSource) -> None:
    media = [one async for one in source.media()]

    assert len(media) == 22
    assert [one.key.order for one in media] == sorted(one.key.order for one in media)


async def test_a_row_is_read_with_all_it_says(source: SynapseSource) -> None:
    media = await source.lookup("fix.test", "XsocBvANapglBJXpeyFagyKx")

    assert media == SourceMedia(
        server_name="fix.test",
        media_id="XsocBvANapglBJXpeyFagyKx",
        kind=MediaKind.LOCAL,
        content_type="text/plain; charset=utf-8",
        size_bytes=14,
        created_ts=1795400778596,
        upload_name='资料 — n°1 "quoted";\u202e.txt',
        user_id="@bob:fix.test",
        last_access_ts=1795400785345,
        authenticated=True,
        sha256=bytes.fromhex("3828eeee974aa7486e7acc258e5c73a0115e168444d6688deb8d5d1306d1f57d"),
    )


async def test_flags_are_read(source: SynapseSource) -> None:
    media = {one.media_id: one async for one in source.media()}

    quarantined = {name: one.quarantined_by for name, one in media.items() if one.quarantined_by}
    assert quarantined == {
        "HcFtaDvniAHtPtCKyzAIMQAh": "@alice:fix.test",
        "wkJMwpzfAiwYSGFQPrDsPUAc": "@alice:fix.test",
        "gIALaQiZZBdYLZxIYOatlavZ": "system",
    }
    assert [name for name, one in media.items() if one.protected] == ["YvxtcryYLUQepcWTKPYoWgOG"]
    assert [name for name, one in media.items() if one.pending] == ["SmRQiRJqWhvGzWEXwhYWVurU"]
    assert {name for name, one in media.items() if one.kind is MediaKind.URL_CACHE} == {
        "2026-11-23_SqkqTcuNyoKHVIYw",
        "2026-11-23_FYeHgYaLMHkEzpkl",
    }
    assert all(one.authenticated and one.is_local for one in media.values())


async def test_pending_media_expire_when_synapse_says(source: SynapseSource) -> None:
    media = await source.lookup("fix.test", "SmRQiRJqWhvGzWEXwhYWVurU")

    assert media is not None
    assert media.expires_ts == 1795400778867 + 24 * 3600 * 1000
    assert (await source.locate(media)).state is ResolutionState.PENDING


async def test_all_bytes_are_found_and_have_the_hashes_of_their_rows(source: SynapseSource) -> None:
    located, orphans = await all_located(source)

    assert len(located) == 22
    assert orphans == []
    states = {name: one.resolution.state for name, one in located.items() if one.resolution.state != "found"}
    assert states == {
        "SmRQiRJqWhvGzWEXwhYWVurU": ResolutionState.PENDING,
        "we~rd.chars": ResolutionState.UNSAFE,
    }
    for one in located.values():
        if one.resolution.found is not None:
            digest = hashlib.sha256()
            async for piece in source.open(one.resolution.found):
                digest.update(piece)
            assert digest.digest() == one.media.sha256


async def test_what_is_located_one_by_one_is_the_same(source: SynapseSource) -> None:
    located, _ = await all_located(source)

    for one in located.values():
        assert (await source.locate(one.media)).state == one.resolution.state


async def test_a_walk_goes_on_behind_any_key(source: SynapseSource) -> None:
    media = [one async for one in source.media()]

    for number, one in enumerate(media):
        rest = [other async for other in source.media(one.key)]
        assert rest == media[number + 1 :]
    assert [one async for one in source.media(SourceKey("zzz.example", ""))] == []
    assert [one async for one in source.media(SourceKey("a.example", "zzz"))] == media


async def test_nothing_is_found_of_what_is_not_there(source: SynapseSource) -> None:
    assert await source.lookup("fix.test", "nothing") is None
    assert await source.lookup("other.test", "KHUabRSCxHJxifHTrQWdABGy") is None
    assert await source.lookup("fix.test", "nul\x00 and \udc80") is None


async def test_thumbnails_are_those_of_the_table(source: SynapseSource) -> None:
    media = await source.lookup("fix.test", "nhdgMMSTqXZZzHXTsLtxMjaR")
    assert media is not None
    thumbnails = [one async for one in source.thumbnails(media)]

    assert [(one.width, one.height, one.method, one.content_type, one.size_bytes) for one in thumbnails] == [
        (32, 32, "crop", "image/png", 82),
        (96, 96, "crop", "image/png", 107),
        (96, 96, "crop", "image/webp", 76),
        (200, 150, "scale", "image/png", 167),
    ]
    assert [one.animated for one in thumbnails] == [False, False, True, False]
    for one in thumbnails:
        assert (await source.locate_thumbnail(one)).state is ResolutionState.FOUND


async def test_preflight_of_a_good_store_has_no_problems(source: SynapseSource) -> None:
    findings = await source.preflight()

    assert findings.problems == []
    assert findings.counts == {"remote": 0, "url_cache": 2, "local": 20, "pending": 1, "quarantined": 3}
    assert findings.bytes["quarantined"] == 300018
    assert any("version is 94" in fact for fact in findings.facts)


async def test_preflight_notices_a_wrong_server_name(sqlite_store: Path) -> None:
    config = SynapseConfig(
        server_name="wrong.test",
        database=SqliteAddress(sqlite_store / "homeserver.db"),
        media_store_path=sqlite_store / "media_store",
    )
    async with SynapseSource(config) as source:
        findings = await source.preflight()

    assert any("server name must be wrong" in problem for problem in findings.problems)


async def test_the_example_configuration_leads_to_the_store(sqlite_store: Path) -> None:
    example = (Path(__file__).parents[1] / "fixtures/imports/homeserver.sqlite.example.yaml").read_text()
    file = sqlite_store / "homeserver.yaml"
    file.write_text(example.replace("/srv/synapse", str(sqlite_store)))

    config = load_synapse_config([file])
    async with SynapseSource(config) as source:
        findings = await source.preflight()

    assert config.max_upload_bytes == 50 * 1024 * 1024
    assert config.url_preview_enabled
    assert findings.problems == []
