"""Settings that contradict one another are told."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mediarepo.config.loading import load_settings, parse_settings
from mediarepo.config.warnings import config_warnings

EXAMPLE = Path(__file__).parents[3] / "config.yaml"
STORE = {
    "region": "r",
    "bucket": "media",
    "access_key_id": "k",
    "secret_access_key": "s",
    "endpoint_url": "https://s3.example.org",
}


def warned(**sections: Any) -> list[str]:
    document = {
        "database": {"url": "postgresql://mediarepo@127.0.0.1/mediarepo"},
        "homeservers": [{"server_name": "a.example", "client_api_url": "http://127.0.0.1:8008"}],
        "stores": {"main": STORE},
    } | sections
    return config_warnings(parse_settings(yaml.safe_dump(document)))


def test_the_example_and_a_plain_configuration_have_none() -> None:
    assert config_warnings(load_settings(EXAMPLE)) == []
    assert warned() == []
    assert warned(federation={"redirect_downloads": True}) == []


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {
                "federation": {"redirect_downloads": True},
                "stores": {"main": STORE | {"endpoint_url": "http://s3.example.org"}},
            },
            ["refuse to follow"],
        ),
        (
            {
                "federation": {"redirect_downloads": True},
                "stores": {"main": STORE | {"endpoint_url": "http://127.0.0.1:8333"}},
            },
            ["refuse to follow", "cannot reach 127.0.0.1"],
        ),
        (
            {
                "federation": {"redirect_downloads": True},
                "stores": {"main": STORE | {"endpoint_url": "https://minio:9000"}},
            },
            ["cannot reach minio"],
        ),
        ({"admin": {"ask_homeserver": False}}, ["nobody can administer"]),
        ({"outbound": {"allow_networks": ["0.0.0.0/0", "10.0.0.0/8"]}}, ["0.0.0.0/0 allows every address"]),
    ],
)
def test_what_does_not_fit_together_is_named(sections: dict[str, Any], words: list[str]) -> None:
    found = warned(**sections)

    assert len(found) == len(words)
    for warning, expected in zip(found, words, strict=True):
        assert expected in warning
