"""Where every command finds its configuration."""

from pathlib import Path
from typing import Annotated

import typer

from mediarepo.config.loading import ConfigError, load_settings
from mediarepo.config.settings import Settings

ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", envvar="MEDIAREPO_CONFIG", help="The configuration file.", show_default=True)
]
DEFAULT_CONFIG = Path("config.yaml")


def read_settings(path: Path) -> Settings:
    """Read and check the configuration, or end the program with words about what is wrong with it."""
    try:
        return load_settings(path)
    except ConfigError as exc:
        typer.echo(str(exc), err=True)
        raise typer.Exit(2) from exc
