import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.previews.hostile_bodies import BODIES

ROOT = Path(__file__).parents[2]
LIMIT_BYTES = 768 * 1024 * 1024
LONGEST_S = 120
TEXT_LIMITS = {"og:title": 200, "og:description": 500, "og:url": 2048}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_read_to_an_end_within_bounds(name: str) -> None:
    command = [sys.executable, "-m", "tests.previews.reading_hostile", name, str(LIMIT_BYTES)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_S, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    print(f"{name}: {answer['cpu_ms']} ms, {answer['peak_kib']} KiB more, for {answer['body_bytes']} bytes")
    assert len(answer["values"]) <= 20
    assert len(answer["pictures"]) <= 5
    assert answer["values"]["og:title"]
    for key, value in answer["values"].items():
        assert isinstance(value, str)
        assert len(value) <= TEXT_LIMITS.get(key, 200)
        assert "<b" not in value
        assert "root:" not in value
