import re

from hypothesis import given
from hypothesis import strategies as st

from mediarepo.model.ids import hour_of, new_media_id, new_object_key, object_key_ts
from mediarepo.model.media import StoreClass

FAR_MS = 4_000_000_000_000


def test_media_ids_are_url_safe_unlike_any_homeservers_and_never_repeat() -> None:
    made = {new_media_id() for _ in range(2000)}

    assert len(made) == 2000
    for media_id in made:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{29}", media_id)
        assert len(media_id) not in {24, 27, 32, 64}


@given(st.integers(min_value=0, max_value=FAR_MS), st.sampled_from(StoreClass))
def test_an_object_key_tells_when_it_was_made(now_ms: int, store_class: StoreClass) -> None:
    object_key = new_object_key("some/prefix", store_class, now_ms)

    assert object_key_ts(object_key) == now_ms
    assert object_key.startswith(f"some/prefix/{store_class}/{hour_of(now_ms)}/")
    assert re.fullmatch(r"[a-z0-9/_-]+", object_key)


def test_foreign_keys_tell_no_time() -> None:
    for key in ["mediarepo/installation", "", "local_content/ab/cd/efgh", "a/b/c/0-1", "x/000000000-short"]:
        assert object_key_ts(key) is None


def test_keys_made_at_the_same_instant_differ() -> None:
    assert len({new_object_key("p", StoreClass.LOCAL, 1) for _ in range(1000)}) == 1000
