"""Which user Postgres runs as, with which programs and data folder, given that it refuses root."""

import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

from mediarepo.embedded.child_process import run_tool
from mediarepo.embedded.data_folder import EmbeddedError, short_name, start_error_text
from mediarepo.embedded.exec_child import NO_NAMESPACE, PLAIN, UNMAP

STATE = Path("/var/lib/mediarepo")
_ACCOUNTS = ("postgres", "nobody")
_SEARCHABLE_BY_ALL = 0o001


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAs:
    """The user to run Postgres as (`identity` is the launcher's argument for it), its programs, and its data folder."""

    identity: str
    binaries: Path
    folder: Path
    uid: int
    gid: int

    @property
    def data(self) -> Path:
        """The cluster's folder."""
        return self.folder / "data"


def find_run_as(folder: Path, binaries: Path) -> RunAs:
    """Choose the user to run Postgres as, by our own uid, the owner of the data, and what the kernel allows.

    Raises EmbeddedError when user namespaces are refused and no other user can be used.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0 and _has_name(uid):
        return _checked(RunAs(identity=PLAIN, binaries=binaries, folder=folder, uid=uid, gid=gid))
    given = _given_away(folder) if uid == 0 else None
    if given is not None:
        return _given_to(pwd.getpwuid((given / "data").stat().st_uid), folder=given, binaries=binaries)
    status, words = _version(binaries, UNMAP)
    if status == 0:
        return RunAs(identity=UNMAP, binaries=binaries, folder=folder, uid=uid, gid=gid)
    if status != NO_NAMESPACE:
        raise start_error_text("Postgres cannot be run", words)
    if uid != 0 or (folder / "data").exists():
        raise EmbeddedError("Postgres needs user namespaces here, which are refused: run this as an ordinary user")
    return _given_to(_account(), folder=folder if _is_reachable(folder) else _moved(folder), binaries=binaries)


def _given_away(folder: Path) -> Path | None:
    """Find data that an earlier run gave to another user."""
    for place in (folder, _state(folder)):
        if (place / "data").exists() and (place / "data").stat().st_uid != 0:
            return place
    return None


def _given_to(account: pwd.struct_passwd, *, folder: Path, binaries: Path) -> RunAs:
    """Let an account run Postgres: it may pass through our folder, and gets copies of programs out of its reach."""
    identity = f"{account.pw_uid}:{account.pw_gid}"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)
    if _version(binaries, identity)[0] != 0:
        binaries = _copied(binaries, folder)
    return _checked(RunAs(identity=identity, binaries=binaries, folder=folder, uid=account.pw_uid, gid=account.pw_gid))


def _copied(binaries: Path, folder: Path) -> Path:
    """Copy Postgres' installation, once per version."""
    version = _version(binaries, PLAIN)[1].split()[-1]
    copy = folder / f"postgres-{version}"
    if not copy.exists():
        new = folder / "postgres.new"
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(binaries.parent, new, symlinks=True)
        new.chmod(0o755)
        new.rename(copy)
    return copy / binaries.name


def _checked(run_as: RunAs) -> RunAs:
    status, words = _version(run_as.binaries, run_as.identity)
    if status != 0:
        raise start_error_text("Postgres cannot be run", words)
    return run_as


def _version(binaries: Path, identity: str) -> tuple[int, str]:
    return run_tool([str(binaries / "initdb"), "--version"], identity=identity)


def _account() -> pwd.struct_passwd:
    for name in _ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedError("Postgres does not run as root, and there is no user `nobody`: run this as an ordinary user")


def _has_name(uid: int) -> bool:
    """Say whether the user stands in the password file, without which initdb refuses."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _is_reachable(folder: Path) -> bool:
    return all(parent.stat().st_mode & _SEARCHABLE_BY_ALL for parent in folder.resolve().parents)


def _moved(folder: Path) -> Path:
    """Leave a link to where the data are instead."""
    link, place = folder / "moved", _state(folder)
    link.unlink(missing_ok=True)
    link.symlink_to(place)
    return place


def _state(folder: Path) -> Path:
    return STATE / f"postgres-{short_name(folder)}"
