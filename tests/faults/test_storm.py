"""A minute of `make storm`, as part of every run of the tests."""

import pytest

from tests.storm.faults import Pace, schedule
from tests.storm.running import storm

SEED = 14
MINUTE = Pace(kills_s=4, s3_s=3, others_s=8)


@pytest.mark.timeout(1500)
async def test_nothing_is_lost_wrong_shown_or_stuck_in_a_storm() -> None:
    verdict = await storm(SEED, 60, pace=MINUTE, workers=6)

    print(verdict.summary())
    assert not verdict.history.violations, verdict.complaint()
    assert verdict.kills + verdict.others >= 20
    assert verdict.history.items


def test_a_seed_makes_the_same_storm_again() -> None:
    one, again, other = (schedule(seed, 60, MINUTE, standby=True) for seed in (1, 1, 2))

    assert one == again != other
