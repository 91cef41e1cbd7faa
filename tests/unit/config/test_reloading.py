from pathlib import Path

import pytest

from mediarepo.config.loading import ConfigError, load_settings, parse_settings
from mediarepo.config.reload import Effect, reload, settings_table
from mediarepo.config.settings import Settings

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reloading.md"
MIB = 1024 * 1024


def example(change: str = "", into: str = "") -> Settings:
    text = (ROOT / "config.yaml").read_text()
    assert change in text
    return parse_settings(text.replace(change, into, 1)).model_copy(deep=True)


def test_the_page_says_of_every_setting_what_a_reload_does_with_it() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]

    assert {name.strip("`"): effect.strip() for name, effect in rows} == settings_table()


def test_limits_policies_keys_tokens_lists_and_the_log_level_are_reloaded() -> None:
    table = settings_table()

    for name in (
        "uploads.max_bytes",
        "quotas.rules",
        "rate_limits.users",
        "retention.policies",
        "homeservers",
        "stores.*.secret_access_key",
        "admin.token",
        "federation.deny_server_names",
        "outbound.allow_networks",
        "previews.url_rules.deny",
        "log.level",
    ):
        assert table[name] is Effect.RELOAD, name


def test_a_reload_changes_what_it_can_and_names_the_rest() -> None:
    live = example()
    uploads = live.uploads

    changes = reload(live, example("max_bytes: 104857600", "max_bytes: 5"))
    also = reload(live, example("pool_size: 10", "pool_size: 20"))

    assert (changes.reloaded, changes.need_restart) == (["uploads.max_bytes"], [])
    assert also.need_restart == ["database.pool_size"]
    assert also.reloaded == ["uploads.max_bytes"]
    assert (uploads.max_bytes, live.database.pool_size) == (104857600, 10)


def test_a_reload_leaves_the_defaults_of_later_configurations_alone() -> None:
    live = example().model_copy(deep=True)

    reload(live, example('level: "info"', 'level: "debug"'))

    assert live.log.level == "debug"
    assert load_settings(ROOT / "config.yaml").log.level == "info"


def test_what_is_valid_only_after_a_restart_changes_nothing() -> None:
    live = example()
    text = (ROOT / "config.yaml").read_text()
    larger = text.replace("max_bytes: 104857600", f"max_bytes: {100_000 * MIB}", 1)
    larger = larger.replace("part_bytes: 8388608", f"part_bytes: {16 * MIB}").replace('level: "info"', 'level: "debug"')

    with pytest.raises(ConfigError, match="need a restart"):
        reload(live, parse_settings(larger))

    assert (live.uploads.max_bytes, live.log.level) == (104857600, "info")


def test_a_store_that_comes_or_goes_needs_a_restart_and_new_keys_do_not() -> None:
    live = example()
    new = live.model_copy(deep=True)
    new.stores["second"] = new.stores["main"].model_copy()
    keys = parse_settings((ROOT / "config.yaml").read_text().replace("stores:\n", "stores:\n", 1))

    assert reload(live, new).need_restart == ["stores.second"]
    assert reload(live, keys).reloaded == []
