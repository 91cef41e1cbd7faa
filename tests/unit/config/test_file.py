"""What a configuration file may say, and in which line it is wrong."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediarepo.config.loading import ConfigError, parse_settings
from mediarepo.config.units import without_unit
from mediarepo.config.warnings import config_warnings

GOOD = """\
database: {url: "postgresql://m@localhost/m"}
homeservers:
  - server_name: example.org
    client_api_url: http://127.0.0.1:8008
stores:
  main: {endpoint_url: "http://127.0.0.1:3900", region: garage, bucket: media}
"""


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ("uploads:\n  max_bytes: 1\nuploads: {}\n", "config:9: uploads: this key stands twice, first in line 7"),
        (
            "uploads:\n  max_bytes: 1\n  max_bytes: 2\n",
            "config:9: uploads.max_bytes: this key stands twice, first in line 8",
        ),
        ("uploads:\n  max_byte: 1\n", "config:8: uploads.max_byte: unknown setting; did you mean 'max_bytes'?"),
        ("uploads:\n  max_bytes: -1\n", "config:8: uploads.max_bytes: "),
        ("uploads:\n  max_bytes: 8 MB/s\n", "give a number of bytes, or a size such as 64 KiB"),
        ("downloads:\n  idle_timeout_ms: 1 fortnight\n", "give a number, or a duration such as 500ms"),
        ("downloads:\n  idle_timeout_ms: 0.5ms\n", "give a number, or a duration such as 500ms"),
        ("uploads:\n  max_bytes:\n", "config:8: uploads.max_bytes: Input should be a valid integer; there is nothing"),
        ("uploads:\n", "config:7: uploads: "),
        ("uploads: [\n", "config:8: not valid YAML: "),
        ("listen:\n  addresses:\n    - 127.0.0.1:1\n    - foo\n", "config:8: listen.addresses: "),
    ],
)
def test_what_is_wrong_is_told_with_its_line(added: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_settings(GOOD + added)

    assert words in str(refused.value)


def test_a_section_without_content_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"nothing behind the colon \(null\)"):
        parse_settings(GOOD + "uploads:\n")


def test_yaml_keys_may_be_merged_and_overridden() -> None:
    text = GOOD.replace("main: {", "main: &one {") + "  other: {<<: *one, prefix: elsewhere}\n"

    assert parse_settings(text).stores["other"].bucket == "media"


def test_durations_and_sizes_may_have_units() -> None:
    settings = parse_settings(
        GOOD
        + """
uploads: {max_bytes: 1.5 GiB, part_bytes: 8 MiB, idle_timeout_ms: 90s, min_bytes_per_s: 2KB, stall_ms: "7000"}
downloads: {max_age_s: 30d, idle_timeout_ms: 2min}
thumbnails: {cpu_limit_s: 7s}
retention: {policies: [{name: old, what: remote, max_idle_ms: 12w}]}
"""
    )

    assert settings.uploads.max_bytes == 3 * 2**29
    assert settings.uploads.idle_timeout_ms == 90_000
    assert (settings.uploads.min_bytes_per_s, settings.uploads.stall_ms) == (2000, 7000)
    assert (settings.downloads.max_age_s, settings.downloads.idle_timeout_ms) == (2_592_000, 120_000)
    assert settings.thumbnails.cpu_limit_s == 7
    assert settings.retention.policies[0].max_idle_ms == 12 * 7 * 86_400_000


@given(st.text(max_size=20), st.sampled_from(["a_ms", "a_s", "a_bytes", "a_bytes_per_s", "other"]))
def test_a_text_becomes_a_number_or_stays_as_it_is(text: str, name: str) -> None:
    value = without_unit(name, text)

    assert value == text or (isinstance(value, int) and name != "other")


def two_stores(first: str, second: str, bucket: str = "media") -> str:
    store = '{{endpoint_url: "http://127.0.0.1:3900", region: garage, bucket: {}, prefix: {}}}'
    head = GOOD[: GOOD.index("  main:")]
    return f"{head}  main: {store.format('media', first)}\n  other: {store.format(bucket, second)}\n"


@pytest.mark.parametrize(("first", "second"), [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_two_stores_of_one_bucket_whose_prefixes_overlap_are_refused(first: str, second: str) -> None:
    with pytest.raises(ConfigError, match="main and other are one bucket"):
        parse_settings(two_stores(first, second))


def test_two_stores_may_share_a_bucket_or_a_prefix() -> None:
    assert parse_settings(two_stores("a", "ab")).stores["other"].prefix == "ab"
    assert parse_settings(two_stores("a", "a", bucket="other")).stores["other"].bucket == "other"


@pytest.mark.parametrize(
    ("storage_class", "words"), [("DEEP_ARCHIVE", "must be restored before they can be read"), ("ia", "pattern")]
)
def test_a_storage_class_that_cannot_serve_media_is_refused(storage_class: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_settings(GOOD.replace("bucket: media", f"bucket: media, storage_class: {storage_class}"))


def test_a_storage_class_is_the_bucket_s_own_unless_one_is_given() -> None:
    cold = GOOD.replace("bucket: media", "bucket: media, storage_class: GLACIER_IR")

    assert parse_settings(GOOD).stores["main"].storage_class is None
    assert parse_settings(cold).stores["main"].storage_class == "GLACIER_IR"


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ("thumbnails: {dynamic_sizes_per_media: 5}\n", "thumbnails.dynamic_sizes_per_media: does nothing without"),
        ("federation: {redirect_lifetime_ms: 5000}\n", "federation.redirect_lifetime_ms: does nothing without"),
        ("listen: {socket_mode: '0600'}\n", "listen.socket_mode: does nothing without a unix socket"),
        ("previews: {max_image_bytes: 1 MiB}\n", "previews.max_image_bytes: does nothing without"),
        ("  cold: {endpoint_url: 'http://10.0.0.1', region: x, bucket: cold, path_style: false}\n", "BUCKET.10.0.0.1"),
        ("  cold: {endpoint_url: 'http://a.b', region: x, bucket: cold, ca_file: /x}\n", "stores.cold.ca_file: does"),
    ],
)
def test_what_has_no_effect_is_told(added: str, words: str) -> None:
    (warning,) = config_warnings(parse_settings(GOOD + added))

    assert words in warning


def test_no_line_is_told_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^config: expected settings"):
        parse_settings(str(tmp_path))
