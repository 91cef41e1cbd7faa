import secrets

import pytest

from mediarepo.config.settings import Settings
from mediarepo.errors import InvalidParamError
from mediarepo.storage.store import Store
from tests.storm.weather import lying
from tests.support.installation import Answer, Installation, installed
from tests.support.s3_wire import S3Wire


def elsewhere(settings: Settings) -> Settings:
    """Point the store to a prefix where there is nothing yet, as a wrong bucket would be."""
    store = settings.stores["main"].model_copy(update={"prefix": f"tests/{secrets.token_hex(6)}"})
    return settings.model_copy(update={"stores": {"main": store}})


async def state_of(own: Installation, media_id: str) -> str:
    return str(await own.value("SELECT state FROM media WHERE media_id = $1", media_id))


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["errcode"]


async def point_rows_at(own: Installation, prefix: str) -> None:
    """Say that the objects lie below another prefix: what a restart on a wrong bucket amounts to."""
    old = f"{own.store.prefix}/"
    await own.rows(
        "UPDATE blob SET object_key = $2 || substr(object_key, length($1) + 1) RETURNING 1", old, f"{prefix}/"
    )


async def test_a_restart_on_a_wrong_bucket_loses_nothing_and_takes_nothing(own: Installation) -> None:
    media_id = await own.upload(b"precious")
    wrong = elsewhere(own.settings)
    await point_rows_at(own, wrong.stores["main"].prefix)

    async with installed(wrong, migrate=False) as lost:
        down = await lost.get(lost.download_path(media_id))
        upload = await lost.request("POST", "/_matrix/media/v3/upload", data=b"new")
        ready = await lost.get("/health/ready")
        await lost.repository.sweeps.sweep()
        after_sweep = await lost.get(lost.download_path(media_id))
        keys = [found.key async for found in lost.store.list(f"{lost.store.prefix}/")]

    assert refusal(down) == refusal(upload) == refusal(after_sweep) == (503, "M_UNKNOWN")
    assert ready.status == 503
    assert b"mediarepo claim" in ready.body
    assert keys == []
    assert await state_of(own, media_id) == "ready"


@pytest.mark.parametrize("marked", [False, True])
async def test_another_prefix_in_the_same_bucket_is_wrong_though_all_objects_are_there(
    own: Installation, *, marked: bool
) -> None:
    media_id = await own.upload(b"precious")
    await own.repository.sweeps.sweep()
    wrong = elsewhere(own.settings)
    if marked:  # copied along with the objects
        marker = await own.store.read(f"{own.store.prefix}/installation", max_bytes=100)
        other = Store("main", wrong.stores["main"])
        async with other:
            await other.put(f"{other.prefix}/installation", [marker], size_bytes=len(marker), metadata={})

    async with installed(wrong, migrate=False) as lost:
        upload = await lost.request("POST", "/_matrix/media/v3/upload", data=b"new")
        ready = await lost.get("/health/ready")
        reports = await lost.repository.sweeps.sweep()
        with pytest.raises(InvalidParamError, match=f"under the prefix {own.store.prefix}, not"):
            await lost.repository.sweeps.take_over(lost.store)
        keys = [found.key async for found in lost.store.list(f"{lost.store.prefix}/")]

    assert (refusal(upload), ready.status) == ((503, "M_UNKNOWN"), 503)
    assert [bool(report.stopped) for report in reports] == [True]
    assert len(keys) == marked
    assert (await own.get(own.download_path(media_id))).body == b"precious"
    assert await state_of(own, media_id) == "ready"


async def test_an_operator_who_moved_everything_can_say_so(own: Installation) -> None:
    media_id = await own.upload(b"moved")
    moved = elsewhere(own.settings)
    key = await own.value("SELECT object_key FROM blob")
    await point_rows_at(own, moved.stores["main"].prefix)
    async with installed(moved, migrate=False) as there:
        report = await there.repository.sweeps.take_over(there.store)
        lost = await there.get(there.download_path(media_id))
        state = await state_of(own, media_id)
        new_key = await own.value("SELECT object_key FROM blob")
        await there.store.put(new_key, [b"moved"], size_bytes=5, metadata={})
        again = await there.repository.sweeps.take_over(there.store)
        found = await there.get(there.download_path(media_id))

    assert key != new_key
    assert (report.found_again, refusal(lost), state) == (0, (404, "M_NOT_FOUND"), "missing")
    assert (again.found_again, found.body) == (1, b"moved")


async def test_a_marker_that_went_astray_is_put_back_when_the_objects_are_there(own: Installation) -> None:
    media_id = await own.upload(b"still here")
    await own.store.delete([f"{own.store.prefix}/installation"])

    async with installed(own.settings, migrate=False) as again:
        answer = await again.get(again.download_path(media_id))
        marked = await again.repository.sweeps.markers.is_ours(again.store)

    assert (answer.body, marked) == (b"still here", True)


async def test_what_was_missing_and_is_there_again_heals_at_the_sweep(own: Installation) -> None:
    media_id = await own.upload(b"lost and found")
    key = await own.value("SELECT object_key FROM blob")
    await own.store.delete([key])
    missing = await own.get(own.download_path(media_id))
    await own.store.put(key, [b"lost and found"], size_bytes=14, metadata={})

    reports = await own.repository.sweeps.sweep()

    assert (missing.status, reports[0].found_again) == (404, 1)
    assert (await own.get(own.download_path(media_id))).body == b"lost and found"


async def test_content_uploaded_again_meanwhile_serves_for_both(own: Installation) -> None:
    first = await own.upload(b"twice")
    key = await own.value("SELECT object_key FROM blob")
    await own.store.delete([key])
    assert (await own.get(own.download_path(first))).status == 404
    second = await own.upload(b"twice")
    await own.store.put(key, [b"twice"], size_bytes=5, metadata={})

    await own.repository.sweeps.sweep()

    assert [(await own.get(own.download_path(one))).body for one in (first, second)] == [b"twice"] * 2
    assert await own.value("SELECT count(*) FROM blob") == 1
    assert key not in await own.object_keys()


async def test_a_wrong_bucket_that_is_down_for_a_while_stays_closed(own: Installation, s3_wire: S3Wire) -> None:
    await own.upload(b"precious")
    wrong = elsewhere(own.settings)
    await point_rows_at(own, wrong.stores["main"].prefix)
    store = wrong.stores["main"].model_copy(update={"endpoint_url": s3_wire.endpoint_url})
    async with installed(wrong.model_copy(update={"stores": {"main": store}}), migrate=False) as lost:
        markers, stores = lost.repository.sweeps.markers, [lost.store]
        assert lost.repository.foundation.stores.closed == {"main"}

        s3_wire.fail_next("*", status=503, code="SlowDown", times=100)
        assert await markers.claim_all(stores) == {"main"}
        s3_wire.clear()
        await lost.repository.sweeps.take_over(lost.store)
        assert await markers.claim_all(stores) == set()


async def test_a_marker_that_s3_gives_in_a_wrong_length_is_an_outage_and_no_wrong_bucket(
    own: Installation, s3_wire: S3Wire
) -> None:
    media_id = await own.upload(b"precious")
    store = own.settings.stores["main"].model_copy(update={"endpoint_url": s3_wire.endpoint_url})
    async with installed(own.settings.model_copy(update={"stores": {"main": store}}), migrate=False) as again:
        markers, stores = again.repository.sweeps.markers, [again.store]
        markers.claimed.clear()

        s3_wire.do_next("GetObject", lying(lambda body: body[: len(body) // 2]), times=2)
        assert await markers.claim_all(stores) == set()
        (report,) = await again.repository.sweeps.sweep()
        whole = await again.get(again.download_path(media_id))

    assert "another length" in str(report.stopped)
    assert whole.body == b"precious"
