"""What the admin commands share: the services, and who acts."""

import os
import pwd
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import typer

from mediarepo.app.build_admin import Administration, build_administration
from mediarepo.app.build_services import build_hash_learner
from mediarepo.app.foundation import elapsed_ms, open_foundation
from mediarepo.config.settings import Settings
from mediarepo.errors import InvalidParamError
from mediarepo.homeserver.client import HomeserverClient
from mediarepo.homeserver.identity import Identity, TokenFailureLimiter, Whoami
from mediarepo.homeserver.tenants import Homeservers
from mediarepo.model.authority import Role
from mediarepo.model.marks import Outcome
from mediarepo.model.mxc import Mxc, parse_mxc
from mediarepo.services.authorization import Admin

_NAME = "command line"


@asynccontextmanager
async def open_administration(settings: Settings) -> AsyncIterator[Administration]:
    """Open the admin services."""
    async with (
        open_foundation(settings) as foundation,
        HomeserverClient(settings.identity, foundation.outages) as calls,
        Identity(
            settings.identity, Whoami(calls), elapsed_ms, TokenFailureLimiter(lambda: None, elapsed_ms)
        ) as identity,
        build_hash_learner(foundation) as hashing,
    ):
        tenants = Homeservers(lambda: settings.homeservers)
        yield build_administration(foundation, tenants, identity, calls, hashing)


def operator(settings: Settings, mxc: Mxc | None = None) -> Admin:
    """Return the operator as the actor, at the homeserver that has the media, or at the first one."""
    by_name = {one.server_name: one for one in settings.homeservers}
    homeserver = by_name.get(mxc.server_name) if mxc is not None else None
    return Admin(name_of_user(), homeserver or settings.homeservers[0], None, Role.COMMAND_LINE)


def name_of_user() -> str:
    """Return "command line" with the system user, and who became that user by sudo."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = f"uid {os.getuid()}"
    before = "".join(char for char in os.environ.get("SUDO_USER", "") if char.isprintable())[:64]
    return f"{_NAME} ({user}, by {before})" if before else f"{_NAME} ({user})"


def left_out(outcome: Outcome) -> str:
    """Describe what an action left out, and why; "" when nothing."""
    words = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in outcome.left_out.items())
    return f" ({words})" if words else ""


def parse_address(text: str) -> Mxc:
    """Parse an mxc:// address. Raises typer.Exit(2) after a message when it is not one."""
    server_name, _, media_id = text.removeprefix("mxc://").partition("#")[0].partition("/")
    try:
        return parse_mxc(server_name, media_id)
    except InvalidParamError as exc:
        typer.echo(f"{text}: {exc.message}", err=True)
        raise typer.Exit(2) from exc
