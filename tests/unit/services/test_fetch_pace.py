import pytest

from mediarepo.model.remote_media import FetchError, FetchReason
from mediarepo.services import remote_fetch


class Trickle:
    content_type = "a/b"
    upload_name: str | None = None
    size_bytes: int | None = None
    at_most_bytes: int | None = None

    async def read(self) -> bytes:
        return b"x"


async def test_content_that_trickles_is_given_up_after_its_first_while(monkeypatch: pytest.MonkeyPatch) -> None:
    body = remote_fetch._TeedBody(Trickle(), None, 10**12)
    assert await body.read() == b"x"

    monkeypatch.setattr(remote_fetch, "_FIRST_S", 0)
    with pytest.raises(FetchError) as caught:
        await body.read()

    assert caught.value.reason is FetchReason.TOO_SLOW
