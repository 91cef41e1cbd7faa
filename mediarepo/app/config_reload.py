"""Taking a changed configuration over into a running process."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import structlog

from mediarepo.app.repository import Repository
from mediarepo.app.signing_keys import read_signing_keys
from mediarepo.config.loading import ConfigError, load_settings
from mediarepo.config.reload import reload
from mediarepo.config.settings import Settings
from mediarepo.config.warnings import config_warnings
from mediarepo.errors import MatrixError
from mediarepo.federation.key_files import KeyFileError
from mediarepo.federation.signing import SigningKey
from mediarepo.telemetry.logs import set_log_level

log = structlog.get_logger(__name__)

_READ_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReloader:
    """Reads the configuration file again whenever it is asked to."""

    repository: Repository
    path: Path

    async def run(self, asked: asyncio.Event) -> None:
        """Reload each time that `asked` is set, until cancelled."""
        while True:
            await asked.wait()
            asked.clear()
            try:
                await self.reload()
            except Exception:  # logged; the process goes on with the old settings
                log.exception("config_reload_failed", config=str(self.path))

    async def reload(self) -> None:
        """Apply the changed settings that can be reloaded.

        An invalid configuration changes nothing and is logged as an error.
        """
        live = self.repository.foundation.settings
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                new, keys = await asyncio.to_thread(_read, self.path)
            changes = reload(live, new)
        except TimeoutError:
            log.error("config_reload_failed", config=str(self.path), reason="the file cannot be read in time")  # noqa: TRY400 - the operator's words
            return
        except (ConfigError, KeyFileError) as exc:
            for line in str(exc).splitlines():
                log.error("config_reload_failed", config=str(self.path), reason=line)  # noqa: TRY400 - as above
            return
        self.repository.federating.replace_keys(keys)
        log.info("config_reloaded", config=str(self.path), settings=changes.reloaded)
        set_log_level(live.log)
        if changes.need_restart:
            log.warning("config_needs_restart", settings=changes.need_restart)
        for warning in config_warnings(live):
            log.warning("config_warning", warning=warning)
        await self._renew_credentials(changes.reloaded)

    async def _renew_credentials(self, changed: list[str]) -> None:
        for name, store in self.repository.foundation.stores.by_name.items():
            if any(setting.startswith(f"stores.{name}.") for setting in changed):
                try:
                    await store.renew_credentials()
                except MatrixError as exc:
                    log.error("config_reload_failed", store=name, reason=str(exc))  # noqa: TRY400 - as above


def _read(path: Path) -> tuple[Settings, dict[str, list[SigningKey]]]:
    settings = load_settings(path)
    return settings, read_signing_keys(settings)
