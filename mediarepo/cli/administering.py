"""What the commands for admins have in common: the operator, at one of the homeservers."""

import os
import pwd
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import typer

from mediarepo.app.build_admin import Administration, join_administration
from mediarepo.app.build_services import join_hashing
from mediarepo.app.foundation import elapsed_ms, open_foundation
from mediarepo.config.settings import Settings
from mediarepo.errors import InvalidParamError
from mediarepo.homeserver.calls import HomeserverCalls
from mediarepo.homeserver.identity import Identity
from mediarepo.homeserver.tenants import Tenants
from mediarepo.homeserver.token_failures import TokenFailureLimiter
from mediarepo.homeserver.whoami import Whoami
from mediarepo.model.authority import Role
from mediarepo.model.marks import Outcome
from mediarepo.model.mxc import Mxc, parse_mxc
from mediarepo.services.admins import Admin

_NAME = "command line"


@asynccontextmanager
async def administering(settings: Settings) -> AsyncIterator[Administration]:
    """Open what admins use."""
    async with (
        open_foundation(settings) as foundation,
        HomeserverCalls(settings.identity) as calls,
        Identity(settings.identity, Whoami(calls), elapsed_ms, TokenFailureLimiter(None, elapsed_ms)) as identity,
        join_hashing(foundation) as hashing,
    ):
        tenants = Tenants(settings.homeservers)
        yield join_administration(foundation, tenants, identity, calls, hashing)


def operator(settings: Settings, mxc: Mxc | None = None) -> Admin:
    """Act as the operator, at the homeserver that has the media, or at the first one."""
    by_name = {one.server_name: one for one in settings.homeservers}
    homeserver = by_name.get(mxc.server_name) if mxc is not None else None
    return Admin(name_of_user(), homeserver or settings.homeservers[0], None, Role.COMMAND_LINE)


def name_of_user() -> str:
    """Name the command line with the system user at it, and who became that by sudo."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = f"uid {os.getuid()}"
    before = "".join(char for char in os.environ.get("SUDO_USER", "") if char.isprintable())[:64]
    return f"{_NAME} ({user}, by {before})" if before else f"{_NAME} ({user})"


def left_out(outcome: Outcome) -> str:
    """Say what an act left out, and why; nothing when it left out nothing."""
    words = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in outcome.left_out.items())
    return f" ({words})" if words else ""


def parse_address(text: str) -> Mxc:
    """Read an mxc:// address, or end the program."""
    server_name, _, media_id = text.removeprefix("mxc://").partition("#")[0].partition("/")
    try:
        return parse_mxc(server_name, media_id)
    except InvalidParamError as exc:
        typer.echo(f"{text}: {exc.message}", err=True)
        raise typer.Exit(2) from exc
