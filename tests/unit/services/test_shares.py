"""Nobody takes all of what many wait for."""

from contextlib import ExitStack

import pytest

from mediarepo.errors import LimitExceededError
from mediarepo.model.mxc import Mxc
from mediarepo.model.requester import authenticate_client, begin_request
from mediarepo.services.upload_waiters import UploadWaiters

MXC = Mxc("media.example", "announced")


def fill(upload_waiters: UploadWaiters, stack: ExitStack) -> int:
    """Wait for content as often as one client may."""
    for count in range(1_000):
        try:
            stack.enter_context(upload_waiters.watching(MXC))
        except LimitExceededError:
            return count
    return 1_000


def test_one_client_never_has_more_than_half_of_those_who_wait_for_content() -> None:
    upload_waiters = UploadWaiters(100)
    with ExitStack() as stack:
        begin_request("198.51.100.7/32")
        assert fill(upload_waiters, stack) == 50

        begin_request("203.0.113.5/32")
        stack.enter_context(upload_waiters.watching(MXC))
        assert upload_waiters.waiters.in_use == 51
    assert upload_waiters.waiters.in_use == 0


def test_users_behind_one_address_have_shares_of_their_own() -> None:
    upload_waiters = UploadWaiters(100)
    with ExitStack() as stack:
        begin_request("198.51.100.7/32")
        authenticate_client("user @greedy:media.example")
        held = fill(upload_waiters, stack)

        authenticate_client("user @modest:media.example")
        stack.enter_context(upload_waiters.watching(MXC))
        assert upload_waiters.waiters.in_use == held + 1


def test_a_limit_of_one_lets_one_wait_and_refuses_the_next_with_a_time() -> None:
    upload_waiters = UploadWaiters(1)
    with upload_waiters.watching(MXC), pytest.raises(LimitExceededError) as refused, upload_waiters.watching(MXC):
        pytest.fail("there was no room")
    assert refused.value.retry_after_s
