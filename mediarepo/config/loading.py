"""Loads settings from a YAML file, and explains line by line what is wrong with it."""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mediarepo.config.settings import Settings
from mediarepo.config.units import unit_help
from mediarepo.config.yaml_lines import DuplicateKeyError, read_yaml

_RENAMED = {"rate_limits.strangers": "rate_limits.anonymous"}
"""Settings by their former names."""


class ConfigError(Exception):
    """The configuration cannot be used; the message has one line per problem."""


def load_settings(path: Path) -> Settings:
    """Read and check a configuration file. Raises ConfigError when it cannot be read or used."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: the file is not UTF-8 text") from exc
    return parse_settings(text, where=str(path))


def parse_settings(text: str, *, where: str = "config") -> Settings:
    """Check a configuration given as YAML text; `where` begins each problem's line.

    Raises ConfigError listing all problems.
    """
    try:
        document = read_yaml(text)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        words = " ".join(str(getattr(exc, "problem", "") or exc).split())
        raise ConfigError(f"{_at(where, mark and mark.line + 1)}: not valid YAML: {words}") from exc
    except DuplicateKeyError as exc:
        raise ConfigError(f"{_at(where, exc.line)}: {exc}") from exc
    if not isinstance(document.value, dict):
        raise ConfigError(f"{where}: expected settings such as `database:` at the top level")
    try:
        return Settings.model_validate(document.value)
    except ValidationError as exc:
        errors = exc.errors(include_input=False)
        lines = [f"{_at(where, document.line_of(one['loc']))}: {_explain(one, document.value)}" for one in errors]
        raise ConfigError("\n".join(lines)) from exc


def _at(where: str, line: int | None) -> str:
    """Write a place as compilers do, FILE:LINE."""
    return where if line is None else f"{where}:{line}"


def _explain(error: Any, document: dict[str, Any]) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    location = [str(part) for part in error["loc"]]
    place = ".".join(location) or "settings"
    if place in _RENAMED:
        return f"{place}: this setting is called {_RENAMED[place]} now"
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown setting{_did_you_mean(error['loc'], document)}"
    if error["type"] == "missing":
        return f"{place}: this setting is required"
    words = f"{place}: {str(error['msg']).removeprefix('Value error, ')}"
    if location and _is_null(error["loc"], document):
        return f"{words}; there is nothing behind the colon (null): give a value, or leave the line out for the default"
    units = unit_help(location[-1]) if location else None
    return f"{words}; give {units}" if units and error["type"].startswith("int_") else words


def _is_null(location: tuple[str | int, ...], document: Any) -> bool:  # noqa: ANN401 - YAML holds anything
    for part in location:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return False
    return document is None


def _did_you_mean(location: tuple[str | int, ...], document: dict[str, Any]) -> str:
    known = _known_keys(location[:-1])
    present = _section(location[:-1], document)
    free = [name for name in known if name not in present]
    close = difflib.get_close_matches(str(location[-1]), free or known, n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(sorted(known))}"


def _section(location: tuple[str | int, ...], document: Any) -> dict[str, Any]:  # noqa: ANN401 - YAML holds anything
    for part in location:
        document = document[part]
    return document if isinstance(document, dict) else {}


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in location:
        if isinstance(part, str) and part in _fields(model):
            model = _model_within(_fields(model)[part]) or model
    return list(_fields(model))


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _model_within(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - a type expression
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _model_within(argument):
            return found
    return None
