import json
import socket
from pathlib import Path

import pytest

from mediarepo.embedded.seaweedfs import ROLES, choose_ports, remove_stale_sockets


def test_ports_are_remembered_while_they_are_free(tmp_path: Path) -> None:
    remembered = tmp_path / "ports.json"
    first = choose_ports(remembered)

    assert set(first) == set(ROLES)
    assert len(set(first.values())) == len(ROLES)
    assert choose_ports(remembered) == first


@pytest.mark.parametrize("offset", [0, 10_000])
def test_ports_are_chosen_anew_when_one_or_its_twin_is_taken(tmp_path: Path, offset: int) -> None:
    remembered = tmp_path / "ports.json"
    first = choose_ports(remembered)

    with socket.create_server(("127.0.0.1", first["filer"] + offset)):
        second = choose_ports(remembered)

    assert second["filer"] != first["filer"]
    assert json.loads(remembered.read_text()) == second


@pytest.mark.parametrize("rubbish", ["", "[]", "{", '{"s3": "x"}', '{"s3": 70000}', "null"])
def test_a_memory_that_makes_no_sense_is_replaced(tmp_path: Path, rubbish: str) -> None:
    remembered = tmp_path / "ports.json"
    remembered.write_text(rubbish)

    assert set(choose_ports(remembered)) == set(ROLES)


def test_sockets_are_removed_once_nobody_answers_there(tmp_path: Path) -> None:
    remembered = tmp_path / "ports.json"
    path = Path(f"/tmp/seaweedfs-s3-{choose_ports(remembered)['s3']}.sock")  # noqa: S108 - where SeaweedFS puts it
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        remove_stale_sockets(remembered)
        assert path.exists()

    remove_stale_sockets(remembered)

    assert not path.exists()
