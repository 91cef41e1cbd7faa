"""The base class of configuration sections, and secrets in files and in the environment."""

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr, model_validator

from mediarepo.config.units import without_unit


class Section(BaseModel):
    """A part of the configuration file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reloadable: ClassVar[frozenset[str]] = frozenset()
    """Fields that a running process takes over from a configuration that is read again; all others need a restart."""

    @model_validator(mode="before")
    @classmethod
    def _units(cls, value: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
        """Take durations and sizes with units."""
        return {name: without_unit(name, one) for name, one in value.items()} if isinstance(value, dict) else value

    def can_reload(self, name: str, _new: Self) -> bool:
        """Return whether a running process can apply a change of this field."""
        return name in self.reloadable


def read_secret(value: object) -> object:
    """Resolve `{file: PATH}` or `{env: NAME}` to the secret; plain values stay.

    A trailing line end of the file is not part of the secret. Raises ValueError when the value has another shape, or
    the file or variable cannot be read.
    """
    if not isinstance(value, dict):
        return value
    if set(value) == {"file"}:
        return _from_file(Path(str(value["file"])))
    if set(value) == {"env"}:
        return _from_environment(str(value["env"]))
    raise ValueError("a secret is a text, {file: PATH} or {env: NAME}")


def _from_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as exc:
        raise ValueError(f"the secret's file {path} cannot be read: {exc.strerror}") from exc


def _from_environment(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise ValueError(f"the secret's environment variable {name} is not set") from None


Secret = Annotated[SecretStr, BeforeValidator(read_secret)]
