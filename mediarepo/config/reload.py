"""Which settings a running process takes over when its configuration is read again, and how.

Sections are shared by all who read them, so a reload changes them in place; what is made of a setting is a `Derived`.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar, get_args

from pydantic import ValidationError

from mediarepo.config.base import Section
from mediarepo.config.loading import ConfigError
from mediarepo.config.settings import Settings

SettingT = TypeVar("SettingT")
ValueT = TypeVar("ValueT")


class Derived(Generic[SettingT, ValueT]):
    """Calls `make` with a setting at first use, and again after a reload has changed the setting."""

    def __init__(self, setting: Callable[[], SettingT], make: Callable[[SettingT], ValueT]) -> None:
        self._setting = setting
        self._make = make
        self._made_of = setting()
        self._value = make(self._made_of)

    def __call__(self) -> ValueT:
        """Return the value for the setting as it is now."""
        setting = self._setting()
        if setting is not self._made_of:
            self._made_of, self._value = setting, self._make(setting)
        return self._value


class Effect(StrEnum):
    """When a changed setting takes effect."""

    RELOAD = "reload"
    RESTART = "restart"


@dataclass(slots=True)
class ConfigChanges:
    """Names of changed settings: those that a reload applies, and those that need a restart."""

    reloaded: list[str] = field(default_factory=list)
    need_restart: list[str] = field(default_factory=list)


def settings_table() -> dict[str, Effect]:
    """Return for every setting when a change takes effect; lists and optional sections are one setting each."""
    return dict(_rows("", Settings))


def _rows(place: str, section: type[Section]) -> Iterator[tuple[str, Effect]]:
    for name, info in section.model_fields.items():
        path = f"{place}{info.alias or name}"
        within = _section_within(info.annotation)
        if within is not None and name not in section.reloadable:
            named = "" if within is info.annotation else ".*"
            yield from _rows(f"{path}{named}.", within)
        else:
            yield path, Effect.RELOAD if name in section.reloadable else Effect.RESTART


def _section_within(annotation: Any) -> type[Section] | None:  # noqa: ANN401 - a type expression
    """Find the section that a field is, or that the values of a mapping are."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if getattr(annotation, "__origin__", None) is dict:
        return _section_within(get_args(annotation)[1])
    return None


def reload(live: Settings, new: Settings) -> ConfigChanges:
    """Take over what can be, or raise ConfigError and change nothing.

    What is taken over must be valid together with what stays until a restart.
    """
    trial = copy.deepcopy(live)
    _adopt("", trial, new, ConfigChanges())
    try:
        Settings.model_validate(trial.model_dump(by_alias=True))
    except ValidationError as exc:
        lines = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors(include_input=False)]
        raise ConfigError(
            "not valid together with settings that need a restart to change: " + "; ".join(lines)
        ) from exc
    changes = ConfigChanges()
    _adopt("", live, new, changes)
    return changes


def _adopt(place: str, live: Section, new: Section, changes: ConfigChanges) -> None:
    for name, info in type(live).model_fields.items():
        path, old_value, new_value = f"{place}{info.alias or name}", getattr(live, name), getattr(new, name)
        if old_value == new_value:
            continue
        if live.can_reload(name, new):
            live.__dict__[name] = new_value
            changes.reloaded.append(path)
        elif isinstance(old_value, Section) and isinstance(new_value, Section):
            _adopt(f"{path}.", old_value, new_value, changes)
        elif isinstance(old_value, dict) and _section_within(info.annotation) is not None:
            _adopt_named(path, old_value, new_value, changes)
        else:
            changes.need_restart.append(path)


def _adopt_named(path: str, live: dict[str, Section], new: dict[str, Section], changes: ConfigChanges) -> None:
    for name in sorted({*live, *new}):
        if name in live and name in new:
            _adopt(f"{path}.{name}.", live[name], new[name], changes)
        else:
            changes.need_restart.append(f"{path}.{name}")
