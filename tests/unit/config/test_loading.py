from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from mediarepo.config.loading import ConfigError, load_settings, parse_settings
from mediarepo.config.settings import Settings

GOOD = """
database: {url: "postgresql://m@localhost/m"}
homeservers:
  - {server_name: example.org, client_api_url: "http://127.0.0.1:8008"}
stores:
  main: {endpoint_url: "http://127.0.0.1:3900", region: garage, bucket: media}
"""


def with_changes(path: list[str | int], value: object) -> str:
    document = yaml.safe_load(GOOD)
    section: Any = document
    for part in path[:-1]:
        section = section[int(part)] if isinstance(section, list) else section.setdefault(part, {})
    section[path[-1]] = value
    return yaml.safe_dump(document)


def all_settings(model: type[BaseModel], path: list[str | int]) -> list[list[str | int]]:
    found = []
    for name, field in model.model_fields.items():
        here = [*path, field.alias or name]
        found.append(here)
        inner, step = inner_model(field.annotation)
        if inner is not None:
            found += all_settings(inner, here + step)
    return found


def inner_model(annotation: Any) -> tuple[type[BaseModel] | None, list[str | int]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, []
    arguments = getattr(annotation, "__args__", ())
    origin = getattr(annotation, "__origin__", None)
    for argument in arguments:
        model, _ = inner_model(argument)
        if model is not None:
            return model, [0] if origin is list else ["main"] if origin is dict else []
    return None, []


EXAMPLES = {
    "appservices",
    "sizes",
    "policies",
    "rules",
    "users",
    "servers",
    "downloads",
    "download_bytes",
    "deny",
    "allow",
    "domains",
}
REACHABLE = [
    path
    for path in all_settings(Settings, [])
    if EXAMPLES.isdisjoint(path[1:-1]) and ("rate_limits" not in path or "anonymous" not in path)
]


@pytest.mark.parametrize("path", REACHABLE, ids=lambda path: ".".join(map(str, path)))
def test_every_setting_misspelt_by_one_letter_is_refused_with_the_right_suggestion(path: list[str | int]) -> None:
    name = str(path[-1])
    misspelt = name[:-2] + name[-1] if len(name) > 3 else name + "x"
    document = yaml.safe_load(with_changes([*path[:-1], misspelt], "x"))
    section = document
    for part in path[:-1]:
        section = section[part]
    section.pop(name, None)
    with pytest.raises(ConfigError) as refused:
        parse_settings(yaml.safe_dump(document))

    line = next(line for line in str(refused.value).splitlines() if f".{misspelt}:" in f".{line.partition(': ')[2]}")
    assert "unknown setting" in line
    assert name in line


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)

    settings = load_settings(path)

    assert settings.homeservers[0].server_name == "example.org"
    assert settings.stores["main"].path_style is True


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["listen", "addresses"], ["::1:8000"], "brackets"),
        (["listen", "addresses"], ["localhost"], "HOST:PORT"),
        (["listen", "addresses"], ["127.0.0.1:99999"], "HOST:PORT"),
        (["listen", "addresses"], ["unix:relative"], "absolute"),
        (["listen", "trusted_proxies"], ["10.0.0.1/8"], "host bits"),
        (["database", "url"], "mysql://x", "postgresql://"),
        (["database", "schema"], "Robert'); DROP", "pattern"),
        (["homeservers", 0, "server_name"], "exa mple", "valid Matrix server name"),
        (["homeservers", 0, "client_api_url"], "127.0.0.1:8008", "http://127.0.0.1:8008"),
        (["homeservers"], [{"server_name": "a.example"}], "no token can be judged"),
        (["uploads", "memory_budget_bytes"], 1000, "four parts"),
        (["uploads", "max_bytes"], 100 * 2**30, "part_bytes to at least 10737419"),
        (["remote_media", "max_bytes"], 100 * 2**30, "at most 83886080000"),
        (["thumbnails", "max_source_bytes"], 10**12, "at least one file"),
        (["store_for", "remote"], "elsewhere", "no store named 'elsewhere'"),
        (["identity", "cache_ms"], 60_000, "less than or equal to 10000"),
        (["stores", "main", "region"], None, "region"),
    ],
)
def test_a_value_that_cannot_be_is_explained(path: list[str | int], value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^config(:\d+)?: ") as refused:
        parse_settings(with_changes(path, value))

    assert words in str(refused.value)


def test_a_setting_with_its_former_name_is_refused_with_the_new_one() -> None:
    text = with_changes(["rate_limits", "strangers"], {})

    with pytest.raises(ConfigError, match=r"rate_limits\.strangers: this setting is called rate_limits\.anonymous now"):
        parse_settings(text)


def test_two_homeservers_cannot_share_a_host() -> None:
    homeservers = [
        {"server_name": "a.example", "client_api_url": "http://x", "hosts": ["Matrix.example"]},
        {"server_name": "b.example", "client_api_url": "http://x", "hosts": ["matrix.example"]},
    ]
    with pytest.raises(ConfigError, match=r"'matrix\.example' belongs to two"):
        parse_settings(with_changes(["homeservers"], homeservers))


@pytest.mark.parametrize("text", ["", "[]", "a: b: c", "\t", "just words"])
def test_what_is_no_configuration_is_told_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_settings(text)

    assert "\n" not in str(refused.value)


def test_a_missing_file_and_missing_sections_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="database: this setting is required"):
        parse_settings("homeservers: []")


def test_secrets_come_from_files_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    monkeypatch.setenv("A_SECRET", "from the environment")
    by_file = parse_settings(with_changes(["database", "password"], {"file": str(tmp_path / "secret")}))
    document = yaml.safe_load(with_changes(["stores", "main", "secret_access_key"], {"env": "A_SECRET"}))
    document["stores"]["main"]["access_key_id"] = "public"
    by_name = parse_settings(yaml.safe_dump(document))

    password, key = by_file.database.password, by_name.stores["main"].secret_access_key
    assert password is not None
    assert key is not None
    assert password.get_secret_value() == "from a file"
    assert key.get_secret_value() == "from the environment"
    assert "from a file" not in repr(by_file)
    assert "from the environment" not in by_name.model_dump_json()


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ({"file": "/nonexistent/secret"}, "cannot be read"),
        ({"env": "NOT_SET_ANYWHERE"}, "is not set"),
        ({"f": 1}, "{file: PATH}"),
    ],
)
def test_a_secret_that_cannot_be_had_is_explained(secret: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_settings(with_changes(["database", "password"], secret))

    assert words in str(refused.value)
