"""Values that are made of settings, and made again after a reload."""

from collections.abc import Callable
from typing import Generic, TypeVar

SettingT = TypeVar("SettingT")
ValueT = TypeVar("ValueT")


class Derived(Generic[SettingT, ValueT]):
    """Calls `make` with a setting when it is first needed, and again when a reload has replaced the setting."""

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
