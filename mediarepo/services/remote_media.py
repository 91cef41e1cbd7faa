"""Remote media: fetched once for everybody who asks.

In one process, requests share a flight; across processes, a lease says who fetches, and the others wait until the
media is stored or the fetch has failed. A process that dies holds a lease only for moments. A fetch is asked for in one
homeserver's name: what it brings is for all homeservers, how it fails may be due to who asked, and is told to its own
users only.
"""

import asyncio
import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

import structlog

from mediarepo.config.federation import RemoteMediaConfig
from mediarepo.config.reload import Derived
from mediarepo.db.database import LeaseLostError
from mediarepo.db.media import MediaTable
from mediarepo.db.remote_media import PastFailure, RemoteTable
from mediarepo.errors import (
    MatrixError,
    NotFoundError,
    NotYetUploadedError,
    RemoteTooLargeError,
    RemoteUnavailableError,
)
from mediarepo.homeserver.tenants import Homeservers
from mediarepo.model.concurrency import Admission, Waiters
from mediarepo.model.marks import OPERATOR
from mediarepo.model.media import Media
from mediarepo.model.mxc import Mxc, spellings
from mediarepo.model.remote_media import FetchError, FetchReason
from mediarepo.services.access_policy import DownloadOptions, lacks_remote_content
from mediarepo.services.leases import LeaseHolder
from mediarepo.services.remote_fetch import RemoteFetch, RemoteFetcher
from mediarepo.services.upload_waiters import UploadWaiters

_WORDS = {
    FetchReason.NO_SIGNING_KEY: "this server has no key to ask other servers with",
    FetchReason.TOO_SLOW: "the other server is too slow",
    FetchReason.BROKEN_OFF: "the other server broke off",
    FetchReason.NOT_UNDERSTOOD: "the other server's answer cannot be understood",
    FetchReason.SIGNATURE_REFUSED: "the other server does not accept this server's signature",
    FetchReason.FORBIDDEN: "the other server refuses",
    FetchReason.RATE_LIMITED: "the other server asks for patience",
    FetchReason.SERVER_ERROR: "the other server failed",
}


def error_for_failure(error: FetchError) -> MatrixError:
    """Say it in Matrix words, without what only the operator should know."""
    match error.reason:
        case FetchReason.NOT_FOUND | FetchReason.DENIED:
            return NotFoundError("media not found")
        case FetchReason.NOT_YET_UPLOADED:
            return NotYetUploadedError("the media has not been uploaded yet")
        case FetchReason.TOO_LARGE:
            return RemoteTooLargeError("the other server's media is too large")
        case reason:
            return RemoteUnavailableError(_WORDS.get(reason, "the other server cannot be reached"), retry_after_s=10)


log = structlog.get_logger(__name__)

_PLACE_WAIT_S = 30.0
_LOOK_S = 1.0
"""How often a waiting process looks whether the fetching one has died, of which nobody brings news."""


class RemoteMedia:
    """Fetches other servers' media; whether anybody may have it is for `mediarepo.services.access` to say."""

    def __init__(
        self,
        config: RemoteMediaConfig,
        *,
        media: MediaTable,
        tenants: Homeservers,
        upload_waiters: UploadWaiters,
        fetching: RemoteFetcher,
        table: RemoteTable,
        lease_holder: LeaseHolder,
        on_fetch: Callable[[str], None],
    ) -> None:
        self._config = config
        self._media = media
        self._tenants = tenants
        self._upload_waiters = upload_waiters
        self._fetching = fetching
        self._table = table
        self._holding = lease_holder
        self._on_fetch = on_fetch
        self.places = Admission(
            "wait for other servers' media",
            places=config.max_fetches,
            share=config.max_fetches_per_server,
            per_target=config.max_fetches_per_server,
            max_waiting=config.max_waiting,
            wait_s=_PLACE_WAIT_S,
        )
        self._denied = Derived(lambda: config.deny_server_names, _any_of)
        self._flights: dict[tuple[Mxc, str], tuple[RemoteFetch, asyncio.Task[None]]] = {}
        self.waiters = Waiters("wait for other servers' media", limit=config.max_waiting)

    @property
    def flights(self) -> int:
        """How many fetches are under way."""
        return len(self._flights)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [task for _, task in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def check_allowed(self, mxc: Mxc) -> None:
        """Refuse media of servers that the configuration denies, as if it did not exist (NotFoundError)."""
        if self._config.deny_server_names and any(map(self._denied().fullmatch, spellings(mxc.server_name))):
            raise NotFoundError("media not found")

    def has_to_fetch(self, mxc: Mxc, media: Media | None, options: DownloadOptions) -> bool:
        """Return whether media must be fetched: for users, never for anonymous clients, and never from ourselves."""
        if not lacks_remote_content(media) or options.legacy or not options.allow_remote or options.tenant is None:
            return False
        return not self._tenants.is_ours(mxc.server_name)

    async def fetch(self, mxc: Mxc, options: DownloadOptions, *, teed: bool) -> RemoteFetch | None:
        """Fetch media, or wait for whoever does; returns None once it is stored.

        With `teed`, returns a fetch under way as soon as its tee can be read from. Raises NotFoundError,
        NotYetUploadedError, RemoteTooLargeError, RemoteUnavailableError, LimitExceededError and UnavailableError.
        """
        with self.waiters.enter():
            try:
                return await self._joined(mxc, options, teed=teed)
            except FetchError as exc:
                raise error_for_failure(exc) from exc

    async def _joined(self, mxc: Mxc, options: DownloadOptions, *, teed: bool) -> RemoteFetch | None:
        """Take part in a flight; in another one while content is still to follow and the asker will wait for it.

        What fails in another homeserver's name is tried in the asker's own.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + options.wait_ms / 1000
        names = self._tenants.names
        while True:
            remote_fetch, task = self._flight(mxc, options, shared_with=names)
            try:
                if teed and await remote_fetch.shown_before(task, options.viewer):
                    return remote_fetch
                await asyncio.shield(task)
            except (FetchError, MatrixError) as exc:
                if remote_fetch.asked_by != options.viewer:
                    names = ()
                    continue
                remaining_s = until - loop.time()
                if (
                    not isinstance(exc, FetchError)
                    or exc.reason is not FetchReason.NOT_YET_UPLOADED
                    or remaining_s < _LOOK_S
                ):
                    raise
                await asyncio.sleep(_LOOK_S)
                options = replace(options, wait_ms=int((remaining_s - _LOOK_S) * 1000))
            else:
                return None

    def _flight(
        self, mxc: Mxc, options: DownloadOptions, *, shared_with: Sequence[str]
    ) -> tuple[RemoteFetch, "asyncio.Task[None]"]:
        """Give the flight of one's own homeserver, or one of `shared_with`; begin one where there is none."""
        under_way = (self._flights.get((mxc, name)) for name in (options.viewer, *shared_with))
        found = next((one for one in under_way if one is not None), None)
        if found is not None:
            return found
        remote_fetch = RemoteFetch(mxc, options.viewer)
        task = asyncio.create_task(self._fly(remote_fetch, options), name="fetch")
        self._flights[mxc, options.viewer] = remote_fetch, task
        task.add_done_callback(lambda done: self._landed(remote_fetch, done))
        return remote_fetch, task

    def _landed(self, remote_fetch: RemoteFetch, task: "asyncio.Task[None]") -> None:
        del self._flights[remote_fetch.mxc, remote_fetch.asked_by]
        failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        remote_fetch.land(failure)
        if failure is not None and not isinstance(failure, FetchError | MatrixError | asyncio.CancelledError):
            log.error("remote_fetch_crashed", server_name=remote_fetch.mxc.server_name, exc_info=failure)

    async def _fly(self, remote_fetch: RemoteFetch, options: DownloadOptions) -> None:
        """Fetch, or wait for whoever does; FetchError or MatrixError when nobody can."""
        loop = asyncio.get_running_loop()
        began, until = loop.time(), loop.time() + self._config.total_timeout_ms / 1000
        with self._upload_waiters.watching(remote_fetch.mxc) as watch:
            while loop.time() < until:
                if await self._tried(remote_fetch, options, waited_ms=(loop.time() - began) * 1000):
                    return
                await watch.wait(_LOOK_S)
        raise FetchError(FetchReason.TOO_SLOW, "another process did not finish in time")

    async def _tried(self, remote_fetch: RemoteFetch, options: DownloadOptions, *, waited_ms: float) -> bool:
        """Fetch unless somebody else does; True once the media are stored."""
        if await self._again(remote_fetch, waited_ms) is None:
            return True
        async with (
            self.places.enter(target=remote_fetch.mxc.server_name),  # before the lease, which others wait for
            self._holding.acquire(f"fetch {remote_fetch.mxc}") as lease,
        ):
            again = await self._again(remote_fetch, waited_ms)
            if again is None:
                return True
            if lease is None:
                return False
            try:
                async with asyncio.timeout(self._config.total_timeout_ms / 1000):
                    await self._fetching.fetch(remote_fetch, options, lease, again=again)
            except TimeoutError as exc:
                await self._note(remote_fetch, FetchError(FetchReason.TOO_SLOW, "the fetch took too long"), exc)
            except FetchError as exc:
                await self._note(remote_fetch, exc, exc)
            except LeaseLostError:
                return False  # somebody else went on with it, and is waited for
        self._on_fetch("stored")
        return True

    async def _again(self, remote_fetch: RemoteFetch, waited_ms: float) -> bool | None:
        """Say whether media must be fetched again that were here before; None when there is nothing to fetch."""
        media = await self._media.get(remote_fetch.mxc, OPERATOR)
        if not lacks_remote_content(media):
            return None
        await self._check_past(remote_fetch, waited_ms)
        return media is not None

    async def _note(self, remote_fetch: RemoteFetch, error: FetchError, cause: BaseException) -> None:
        mxc, asked_by = remote_fetch.mxc, remote_fetch.asked_by
        log.warning(
            "remote_fetch_failed",
            server_name=mxc.server_name,
            asked_by=asked_by,
            reason=error.reason,
            detail=error.message,
        )
        self._on_fetch(error.reason)
        await self._table.note_failure(mxc, asked_by, error.reason, error.message)
        raise error from (cause if cause is not error else error.__cause__)

    async def _check_past(self, remote_fetch: RemoteFetch, waited_ms: float) -> None:
        """Refuse what has just failed, here or in another process, and servers that are left alone."""
        server_name = remote_fetch.mxc.server_name
        failure = await self._table.failure(remote_fetch.mxc, remote_fetch.asked_by)
        if failure is not None and failure.age_ms <= max(waited_ms, self._memory_ms(failure)):
            raise FetchError(failure.reason, failure.message)
        backoff = await self._table.backoff(server_name, remote_fetch.asked_by)
        remote_fetch.known_backoff = backoff is not None
        if backoff is not None and backoff.remaining_ms > 0:
            log.info("remote_server_backoff", server_name=server_name, reason=backoff.reason)
            raise RemoteUnavailableError(
                f"{server_name} could not be reached just now", retry_after_s=-(-backoff.remaining_ms // 1000)
            )

    def _memory_ms(self, failure: PastFailure) -> int:
        match failure.reason:
            case FetchReason.NOT_FOUND | FetchReason.TOO_LARGE:
                return self._config.remember_not_found_ms
            case FetchReason.NOT_YET_UPLOADED:
                return 0
            case _:
                return self._config.remember_failure_ms


def _any_of(globs: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(glob.lower()) for glob in globs))
