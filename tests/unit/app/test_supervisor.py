from mediarepo.app.supervisor import Supervisor
from mediarepo.web.listening import Listeners

SHORT_S, LONG_S = 0.5, 3_600.0


def pauses_after(lives_s: list[float]) -> list[float]:
    """Say how long a worker of these lives waited after each."""
    supervisor = Supervisor(1, Listeners([], []), lambda _: 0)
    return [supervisor.plan_restart(0, ran_s) for ran_s in lives_s]


def test_a_worker_that_ends_again_and_again_waits_longer_each_time_and_never_for_ever() -> None:
    assert pauses_after([SHORT_S] * 8) == [0, 1, 2, 4, 8, 16, 30, 30]


def test_a_worker_that_ran_for_long_is_started_at_once_and_counts_anew() -> None:
    assert pauses_after([SHORT_S, SHORT_S, SHORT_S, LONG_S, SHORT_S, SHORT_S]) == [0, 1, 2, 0, 1, 2]
