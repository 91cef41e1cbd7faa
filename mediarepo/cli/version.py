"""The version, and the commit that it was installed from or runs in."""

import json
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

_PACKAGE = "matrix-mediarepo"
_SHOWN = 12


def version_text() -> str:
    """Write the version, as in "0.1.0 (commit 1a2b3c4d5e6f)"; without the commit where it is not known."""
    commit = _installed_from() or _checked_out()
    return version(_PACKAGE) + (f" (commit {commit[:_SHOWN]})" if commit else "")


def _installed_from() -> str | None:
    """Read the commit that pip installed (PEP 610: direct_url.json)."""
    try:
        text = distribution(_PACKAGE).read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    commit = json.loads(text or "{}").get("vcs_info", {}).get("commit_id")
    return commit if isinstance(commit, str) else None


def _checked_out() -> str | None:
    """Read the commit of the checkout that the package lies in, from the files of Git."""
    folder = Path(__file__).resolve().parents[2] / ".git"
    try:
        if folder.is_file():  # a worktree
            folder = Path(folder.read_text(encoding="utf-8").removeprefix("gitdir:").strip())
        head = (folder / "HEAD").read_text(encoding="utf-8").strip()
        common = folder / "commondir"
        shared = folder / common.read_text(encoding="utf-8").strip() if common.is_file() else folder
        return _resolve(head, shared)
    except (OSError, UnicodeDecodeError):
        return None


def _resolve(head: str, folder: Path) -> str | None:
    if not head.startswith("ref:"):
        return head
    name = head.removeprefix("ref:").strip()
    if (folder / name).is_file():
        return (folder / name).read_text(encoding="utf-8").strip()
    lines = (folder / "packed-refs").read_text(encoding="utf-8").splitlines()
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)
