"""Policies that move objects to other stores are planned, armed and run."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mediarepo.app.build_store_moves import build_storage_policies
from mediarepo.app.repository import jobs_of
from mediarepo.config.cleanup import StorageMovePolicy
from mediarepo.config.loading import ConfigError, parse_settings
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.errors import InvalidParamError, NotFoundError
from mediarepo.model.store_moves import MoveTally
from mediarepo.services.store_moves.policies import StoragePolicies
from tests.support.installation import Installation, installed, settings_for
from tests.support.two_stores import places, two_stores

POLICY = {"name": "idle", "from_store": "main", "to_store": "cold", "max_idle_ms": 3_600_000}


@pytest.fixture
def document(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> dict[str, Any]:
    moves = {"policies": [POLICY], "interval_ms": 3_600_000}
    return two_stores(postgres, s3, storage_moves=moves, log={"level": "error"})


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3, document: dict[str, Any]) -> AsyncIterator[Installation]:
    async with installed(settings_for(postgres, s3, **document)) as running:
        yield running


async def idle_and_new(own: Installation) -> tuple[str, str]:
    idle, new = await own.upload(b"idle for long"), await own.upload(b"new")
    await own.rows("UPDATE media SET created_ts = 1 WHERE media_id = $1", idle)
    return idle, new


async def store_of(own: Installation, media_id: str) -> str:
    return (await places(own))[media_id][0][0]


async def run_job(own: Installation) -> None:
    """Let the scheduler's hour pass."""
    await own.rows("DELETE FROM job_run")
    (job,) = [job for job in jobs_of(own.repository) if job.name == "storage_moves"]
    await job.run()


def policies_of(own: Installation) -> StoragePolicies:
    return build_storage_policies(own.repository.foundation)


async def test_an_armed_policy_moves_what_has_become_idle_and_nothing_else(own: Installation) -> None:
    idle, new = await idle_and_new(own)
    found, tally = policies_of(own), MoveTally()
    policy = found.policy("idle")

    await run_job(own)
    assert await store_of(own, idle) == "main"
    await found.plan(policy, tally)
    await run_job(own)
    assert await store_of(own, idle) == "main"

    await found.arm(policy, "somebody", armed=True)
    await run_job(own)

    assert tally.planned == 1
    assert (await store_of(own, idle), await store_of(own, new)) == ("cold", "main")
    assert (await own.get(own.download_path(idle))).body == b"idle for long"
    rows = await own.rows("SELECT homeserver, action, target, affected FROM audit_log ORDER BY entry_id")
    assert [tuple(row) for row in rows] == [
        ("media.example", "arm_storage_move", "move idle", 0),
        ("other.example", "arm_storage_move", "move idle", 0),
        ("media.example", "move_objects", "store main to store cold", 1),
    ]

    await found.arm(policy, "somebody", armed=False)
    await own.rows("UPDATE media SET created_ts = 1")
    await run_job(own)
    assert await store_of(own, new) == "main"


async def test_a_policy_without_a_plan_of_its_present_form_moves_nothing(own: Installation) -> None:
    idle, _ = await idle_and_new(own)
    found = policies_of(own)
    policy = found.policy("idle")

    for refused in (found.arm(policy, "somebody", armed=True), found.run(policy, "somebody", MoveTally())):
        with pytest.raises(InvalidParamError, match="has no plan"):
            await refused
    await found.plan(policy, MoveTally())
    changed = StorageMovePolicy.model_validate(POLICY | {"max_idle_ms": 5})
    with pytest.raises(InvalidParamError, match="was changed since"):
        await found.run(changed, "somebody", MoveTally())
    with pytest.raises(NotFoundError, match="no policy 'other'"):
        found.policy("other")

    assert await store_of(own, idle) == "main"
    await found.run(policy, "somebody", MoveTally())
    assert await store_of(own, idle) == "cold"


async def test_without_policies_there_is_no_job(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with installed(settings_for(postgres, s3)) as own:
        assert "storage_moves" not in {job.name for job in jobs_of(own.repository)}


async def test_policies_are_planned_and_run_by_command(
    own: Installation, document: dict[str, Any], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    idle, _ = await idle_and_new(own)

    async def run(*arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mediarepo", "stores", *arguments, "--config", str(config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    status, refused = await run("arm", "idle")
    assert status == 1
    assert "look at `mediarepo stores plan idle` first" in refused
    assert await run("plan", "idle") == (0, "idle: 1 objects would move, 13 B\n")
    assert await run("arm", "idle") == (0, "idle: armed\n")
    assert "by command line" in (await run("policies"))[1]
    assert await run("disarm", "idle") == (0, "idle: not armed\n")
    assert await run("run", "idle") == (0, "idle: move 1, 1 objects moved, 13 B\n")
    assert await store_of(own, idle) == "cold"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"to_store": "main"}, "from_store and to_store are one store"),
        ({"max_idle_ms": None}, "give max_age_ms, max_idle_ms or larger_than_bytes"),
        ({"to_store": "nowhere"}, "there is no store named 'nowhere'"),
        ({"from_store": "nowhere"}, "there is no store named 'nowhere'"),
    ],
)
def test_a_policy_that_cannot_move_anything_is_refused(
    document: dict[str, Any], changes: dict[str, object], words: str
) -> None:
    document["storage_moves"]["policies"] = [POLICY | changes]

    with pytest.raises(ConfigError, match=words):
        parse_settings(yaml.safe_dump(document))


def test_policies_have_names_that_differ_and_stores_that_take_writes(document: dict[str, Any]) -> None:
    document["storage_moves"]["policies"] = [POLICY, POLICY]
    with pytest.raises(ConfigError, match="names that differ"):
        parse_settings(yaml.safe_dump(document))
    document["storage_moves"]["policies"] = [POLICY]
    document["stores"]["cold"]["read_only"] = True
    with pytest.raises(ConfigError, match="'cold' is read_only"):
        parse_settings(yaml.safe_dump(document))
