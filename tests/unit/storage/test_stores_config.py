from typing import Any

import pytest
from pydantic import ValidationError

from mediarepo.config.storage import StoreConfig

MINIMAL = {"endpoint_url": "http://127.0.0.1:3900", "region": "garage", "bucket": "media"}


def test_a_store_needs_an_address_a_region_and_a_bucket() -> None:
    for name in MINIMAL:
        with pytest.raises(ValidationError):
            StoreConfig.model_validate({key: value for key, value in MINIMAL.items() if key != name})


@pytest.mark.parametrize(
    "setting",
    [
        {"endpoint_url": "127.0.0.1:3900"},
        {"endpoint_url": "ftp://127.0.0.1"},
        {"endpoint_url": "https://key:secret@s3.example.org"},
        {"endpoint_url": "https://s3.example.org?a=b"},
        {"region": ""},
        {"bucket": "media/sub"},
        {"prefix": ""},
        {"prefix": "/mediarepo"},
        {"prefix": "mediarepo/"},
        {"prefix": "a//b"},
        {"prefix": "Media"},
        {"access_key_id": "key"},
        {"secret_access_key": "secret"},
        {"session_token": "token"},
        {"max_connections": 0},
        {"checksum": "crc64nvme"},
    ],
)
def test_what_cannot_work_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StoreConfig.model_validate(MINIMAL | setting)


def test_a_trailing_slash_of_the_address_does_not_matter() -> None:
    assert StoreConfig.model_validate(MINIMAL | {"endpoint_url": "http://s3/"}).endpoint_url == "http://s3"


def test_secrets_do_not_show_when_the_configuration_is_printed() -> None:
    config = StoreConfig.model_validate(MINIMAL | {"access_key_id": "key", "secret_access_key": "very-secret"})
    assert "very-secret" not in repr(config)
