"""`mediarepo examples`: the files that operators copy, carried by the package."""

from pathlib import Path
from typing import Annotated

import typer

_FOLDERS = ("nginx", "caddy", "haproxy", "traefik", "apache", "systemd")


def example_files() -> dict[str, Path]:
    """Map names such as nginx/mediarepo.conf to files: in the installed package, or in a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "_examples"
    root = shipped if shipped.is_dir() else package.parent
    found = {"config.yaml": root / "config.yaml"}
    for folder in _FOLDERS:
        for path in sorted((root / "deploy" / folder).glob("*")):
            if path.is_file():
                found[f"{folder}/{path.name}"] = path
    return found


def examples(
    name: Annotated[str | None, typer.Argument(help="The file to print; default: list them all.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Write all of them below this folder.")] = None,
) -> None:
    """List, print or write the example files: configuration, systemd unit, proxies; exit 2 for an unknown one."""
    files = example_files()
    if to is not None:
        _write_all(files, to)
    elif name is None:
        typer.echo("\n".join(files))
    elif name in files:
        typer.echo(files[name].read_text(encoding="utf-8"), nl=False)
    else:
        typer.echo(f"there is no example {name!r}; there are: {', '.join(files)}", err=True)
        raise typer.Exit(2)


def _write_all(files: dict[str, Path], folder: Path) -> None:
    """Write the files that are not there yet."""
    for name, path in files.items():
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("x", encoding="utf-8") as file:
                file.write(path.read_text(encoding="utf-8"))
        except FileExistsError:
            typer.echo(f"{target} exists, and was left as it is", err=True)
        except OSError as exc:
            typer.echo(f"mediarepo: {target} cannot be written: {exc.strerror}", err=True)
            raise typer.Exit(1) from exc
        else:
            typer.echo(str(target))
