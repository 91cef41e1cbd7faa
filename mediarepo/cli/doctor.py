"""`mediarepo doctor`: checks an installation part by part, and says what to do about what is wrong."""

import json
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mediarepo.app.build_remote import open_federation
from mediarepo.app.diagnosis import (
    confinement,
    examine_configuration,
    examine_homeservers,
    examine_sandbox,
    examine_scanners,
    examine_stores,
)
from mediarepo.app.foundation import now_ms, open_foundation
from mediarepo.cli.permissions import is_granted
from mediarepo.cli.runner import DEFAULT_CONFIG, ConfigFile, read_settings, run
from mediarepo.config.server import LogConfig, LogLevel
from mediarepo.config.settings import Settings
from mediarepo.db.doctor import examine_database
from mediarepo.errors import InvalidParamError
from mediarepo.federation.doctor import FederationDoctor
from mediarepo.model.findings import Finding, Verdict
from mediarepo.model.mxc import Mxc, parse_mxc, parse_server_name
from mediarepo.outbound.probe import probe_key
from mediarepo.outbound.proxy_doctor import ProxyDoctor
from mediarepo.telemetry.logs import set_up_logs

doctor_cli = typer.Typer(
    help="Check configuration, database, stores, homeservers, scanners, proxy, federation, sandbox; exit 1 on failure.",
    invoke_without_command=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON object a line.")]
PublicUrl = Annotated[
    str | None, typer.Option("--public", help="Check the reverse proxy as well, at the address that clients use.")
]
FederationUrl = Annotated[
    str | None, typer.Option("--federation", help="Address that other servers use; default: that of --public.")
]
CaFile = Annotated[str | None, typer.Option("--ca-file", help="Certificates to trust besides the system's, in PEM.")]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="MEDIAREPO_TOKEN", help="Access token of a user, who uploads a file; better given by the environment."
    ),
]
_PARTS = ("config", "database", "stores", "homeservers", "scanners", "sandbox")
_NO_SUCH_MEDIA = "mediarepo-doctor"
_WIDTH = 9


class _Report:
    """Prints findings as they come, and remembers whether one is a problem."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.counts = dict.fromkeys(Verdict, 0)

    def add(self, part: str, finding: Finding) -> None:
        """Print a finding."""
        self.counts[finding.verdict] += 1
        if self._as_json:
            typer.echo(json.dumps({"part": part, **asdict(finding)}, ensure_ascii=False))
            return
        typer.echo(f"{finding.verdict:<{_WIDTH}}{finding.subject}: {finding.check}: {finding.detail}")
        if finding.advice:
            typer.echo(f"{'':<{_WIDTH}}-> {finding.advice}")

    async def add_all(self, part: str, findings: AsyncIterator[Finding]) -> None:
        """Print findings as they come."""
        async for finding in findings:
            self.add(part, finding)

    def finish(self, not_checked: Iterable[str] = ()) -> None:
        """Print the sum. Raises typer.Exit(1) when there was a problem."""
        if not self._as_json:
            counts = ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items())
            typer.echo(counts)
            for words in not_checked:
                typer.echo(f"not checked: {words}")
        if self.counts[Verdict.PROBLEM]:
            raise typer.Exit(1)


def _read(config: Path, report: _Report) -> Settings:
    """Read the configuration, reporting only what keeps it from being used."""
    settings, found = examine_configuration(config)
    if settings is None:
        for finding in found:
            report.add("config", finding)
        raise typer.Exit(1)
    set_up_logs(LogConfig(level=LogLevel.ERROR))
    return settings


@doctor_cli.callback()
def everything(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    public: PublicUrl = None,
    as_json: AsJson = False,
) -> None:
    """Check everything, or the part that is named; exit 1 when something does not work."""
    if context.invoked_subcommand is not None:
        return
    if not all(is_granted(f"doctor {part}") for part in _PARTS):
        typer.echo("mediarepo: the command line may not do this: doctor", err=True)
        raise typer.Exit(1)
    report = _Report(as_json=as_json)
    settings, found = examine_configuration(config)
    for finding in found:
        report.add("config", finding)
    if settings is None:
        report.finish()
        return
    set_up_logs(LogConfig(level=LogLevel.ERROR))
    run(_everything(settings, report, public))
    skipped = [] if public else ["the reverse proxy (say --public https://ADDRESS-OF-CLIENTS)"]
    report.finish([*skipped, "other servers (say `mediarepo doctor federation matrix.org`)"])


async def _everything(settings: Settings, report: _Report, public: str | None) -> None:
    problems = report.counts[Verdict.PROBLEM]
    await report.add_all("database", examine_database(settings.database))
    with_database = report.counts[Verdict.PROBLEM] == problems
    await report.add_all("stores", examine_stores(settings, list(settings.stores), with_database=with_database))
    await report.add_all("homeservers", examine_homeservers(settings))
    await report.add_all("scanners", examine_scanners(settings))
    await report.add_all("sandbox", examine_sandbox(settings))
    if public is not None:
        await _proxy(settings, report, public, None, settings.homeservers[0].server_name, None, None)


@doctor_cli.command("config")
def configuration(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Check the configuration file and the files that it names."""
    report = _Report(as_json=as_json)
    for finding in examine_configuration(config)[1]:
        report.add("config", finding)
    report.finish()


@doctor_cli.command()
def database(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Check Postgres: version, pooler, rights, schema, latency, settings, connections, clock, replicas."""
    report = _Report(as_json=as_json)
    settings = _read(config, report)
    run(report.add_all("database", examine_database(settings.database)))
    report.finish()


@doctor_cli.command()
def homeservers(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Check each homeserver: API, token checks, its own media repository, admin token, published signing key."""
    report = _Report(as_json=as_json)
    settings = _read(config, report)
    run(report.add_all("homeservers", examine_homeservers(settings)))
    report.finish()


@doctor_cli.command()
def scanners(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Check each content scanner: whether it answers, and finds the EICAR test file."""
    report = _Report(as_json=as_json)
    settings = _read(config, report)
    run(report.add_all("scanners", examine_scanners(settings)))
    report.finish()


@doctor_cli.command()
def proxy(
    public: Annotated[
        str, typer.Option("--public", help="Address that clients use, as in https://matrix.example.org.")
    ],
    federation_url: FederationUrl = None,
    config: ConfigFile = DEFAULT_CONFIG,
    homeserver: Annotated[str | None, typer.Option("--as", help="Whose address it is; default: the first's.")] = None,
    ca_file: CaFile = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Check the reverse proxy from outside: routes, Host, client address, escapes, CORS, large uploads."""
    report = _Report(as_json=as_json)
    settings = _read(config, report)
    name = _our_name(settings, homeserver)
    run(_proxy(settings, report, public, federation_url, name, ca_file, token))
    report.finish()


async def _proxy(
    settings: Settings,
    report: _Report,
    public: str,
    federation_url: str | None,
    name: str,
    ca_file: str | None,
    token: str | None,
) -> None:
    for url in (public, federation_url or public):
        if not url.startswith(("https://", "http://")):
            typer.echo(f"{url}: expected an address such as https://matrix.example.org", err=True)
            raise typer.Exit(2)
    doctor = ProxyDoctor(
        public,
        federation_url or public,
        server_name=name,
        max_upload_bytes=settings.uploads.max_bytes,
        key=probe_key(settings),
        ca_file=ca_file,
        token=token,
    )
    async with doctor:
        await report.add_all("proxy", doctor.examine())


def _our_name(settings: Settings, asked: str | None) -> str:
    name = asked or settings.homeservers[0].server_name
    if name not in {one.server_name for one in settings.homeservers}:
        typer.echo(f"there is no homeserver {name!r} under homeservers", err=True)
        raise typer.Exit(2)
    return name


@doctor_cli.command()
def federation(
    server: Annotated[str, typer.Argument(help="The other server's name, or the mxc:// address of one of its media.")],
    config: ConfigFile = DEFAULT_CONFIG,
    homeserver: Annotated[
        str | None, typer.Option("--as", help="Which of our homeservers sends the requests; default: the first.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check each step to another server: discovery, TLS, keys, signed download; exit 1 at the step that fails."""
    settings = read_settings(config)
    origin = _our_name(settings, homeserver)
    try:
        mxc = _address(server)
    except InvalidParamError as exc:
        typer.echo(exc.message, err=True)
        raise typer.Exit(2) from exc
    run(_federation(settings, mxc, origin, as_json=as_json))


def _address(text: str) -> Mxc:
    if text.startswith("mxc://"):
        server_name, _, media_id = text.removeprefix("mxc://").partition("/")
        return parse_mxc(server_name, media_id)
    return Mxc(parse_server_name(text), _NO_SUCH_MEDIA)


async def _federation(settings: Settings, mxc: Mxc, origin: str, *, as_json: bool) -> None:
    good = True
    async with open_foundation(settings) as foundation, open_federation(foundation) as federating:
        client = federating.client
        doctor = FederationDoctor(discovery=client.discovery, outbound=client.outbound, client=client, now_ms=now_ms())
        key = federating.keys.get(origin)
        async for hop in doctor.examine(mxc.server_name, mxc.media_id, origin=origin, key=key):
            good = good and (hop.good or hop.name.startswith("connection"))
            typer.echo(
                json.dumps(asdict(hop)) if as_json else f"{'ok ' if hop.good else 'NOT'}  {hop.name}: {hop.detail}"
            )
        last = hop
    if not (good and last.good):
        raise typer.Exit(1)


@doctor_cli.command()
def stores(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Check each store with real requests, and that it is ours and no newer than the database."""
    report = _Report(as_json=as_json)
    settings = _read(config, report)
    run(report.add_all("stores", examine_stores(settings, list(settings.stores))))
    report.finish()


@doctor_cli.command()
def store(
    name: Annotated[str, typer.Argument(help="The store's name in the configuration.")],
    config: ConfigFile = DEFAULT_CONFIG,
    full: Annotated[bool, typer.Option("--full", help="Run all checks of conformance to S3.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check one store without the database, writing under PREFIX/doctor/ and cleaning up; exit 1 when one fails."""
    report = _Report(as_json=as_json)
    settings = _read(config, report)
    if name not in settings.stores:
        typer.echo(f"there is no store {name!r} under stores", err=True)
        raise typer.Exit(2)
    run(report.add_all("stores", examine_stores(settings, [name], full=full, with_database=False)))
    report.finish()


@doctor_cli.command()
def sandbox(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Start a sandboxed process and show its confinement; exit 1 if `sandbox.enforcement` requires more."""
    settings = read_settings(config)
    run(_sandbox(settings, as_json=as_json))


async def _sandbox(settings: Settings, *, as_json: bool) -> None:
    good, confined = await confinement(settings)
    if as_json:
        typer.echo(json.dumps({"good": good, "enforcement": settings.sandbox.enforcement, **confined}))
    else:
        _show_confinement(confined, good=good, enforcement=settings.sandbox.enforcement)
    if not good:
        raise typer.Exit(1)


def _show_confinement(confined: dict[str, bool], *, good: bool, enforcement: str) -> None:
    if not confined:
        typer.echo("NOT  sandbox: the process did not start")
        return
    for name in ("seccomp", "landlock"):
        verdict = "stands" if confined[name] else "failed" if confined[f"kernel_{name}"] else "this kernel has none"
        typer.echo(f"{'ok ' if confined[name] else 'NOT'}  {name}: {verdict}")
    user = "given up" if os.geteuid() == 0 else "the server's; run it as a user of its own"
    typer.echo(f"ok   user: {user}")
    consequence = "thumbnails and previews are made" if good else "neither thumbnails nor previews are made"
    typer.echo(f"{'ok ' if good else 'NOT'}  sandbox.enforcement {enforcement}: {consequence}")
