"""What `mediarepo export` tells while it works, and at the end."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import typer

from mediarepo.cli.showing import human_bytes, moving_line
from mediarepo.exporters.errors import ExportError
from mediarepo.model.exports import ExportOutcome, ExportResult, ExportTally

_EVERY_S = 30
_FAILURES_IN_A_ROW = 20
_INCOMPLETE = (ExportOutcome.MISSING, ExportOutcome.DAMAGED, ExportOutcome.CONFLICT, ExportOutcome.REFUSED)


class ExportReport:
    """Counts results, and tells of those that are less than hoped for; `errors_only` leaves standard output alone."""

    def __init__(self, tally: ExportTally, *, as_json: bool, errors_only: bool) -> None:
        self.tally = tally
        self._as_json, self._to_errors = as_json, errors_only

    @property
    def exit_status(self) -> int:
        """Say 0 when all is well, 2 when some media could not be exported, 3 when some should be tried again."""
        if self.tally.outcomes[ExportOutcome.FAILED]:
            return 3
        return 2 if any(self.tally.outcomes[outcome] for outcome in _INCOMPLETE) else 0

    async def follow(self, results: AsyncGenerator[ExportResult, None]) -> None:
        """Take every result; ExportError when one after the other fails."""
        failures = 0
        async with aclosing(results), self._shown():
            async for result in results:
                self.tally.note(result)
                self._tell(result)
                failures = failures + 1 if result.outcome is ExportOutcome.FAILED else 0
                if failures == _FAILURES_IN_A_ROW:
                    raise ExportError(f"stopped after {failures} failures in a row; run it again to go on")

    def _tell(self, result: ExportResult) -> None:
        if result.outcome not in _INCOMPLETE and result.outcome is not ExportOutcome.FAILED:
            return
        if self._as_json:
            told = {"action": "problem", "mxc": str(result.media.mxc), "outcome": result.outcome, "why": result.words}
            self._write(json.dumps(told))
        else:
            typer.echo(f"{result.media.mxc}: {result.outcome}: {result.words}", err=True)

    def summarise(self) -> None:
        """Tell what came of it all."""
        tally = self.tally
        if self._as_json:
            self._write(json.dumps({"action": "done", **self._figures(), "exit_status": self.exit_status}))
            return
        found = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in sorted(tally.outcomes.items()))
        self._write(f"{tally.media} media: {found or 'none'}; {human_bytes(tally.written_bytes)} written")

    def _write(self, line: str) -> None:
        typer.echo(line, err=self._to_errors)

    def _figures(self) -> dict[str, object]:
        tally = self.tally
        return {
            "media": tally.media,
            "total_media": tally.total_media,
            "bytes": tally.bytes,
            "total_bytes": tally.total_bytes,
            "written_bytes": tally.written_bytes,
            **{outcome.value: tally.outcomes[outcome] for outcome in ExportOutcome},
        }

    @asynccontextmanager
    async def _shown(self) -> AsyncIterator[None]:
        """Show how far it has come: a line that moves on terminals, now and then a line of JSON elsewhere."""
        beating = None if sys.stderr.isatty() else asyncio.create_task(self._beat())
        try:
            async with moving_line(self._line):
                yield
        finally:
            if beating is not None:
                beating.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            typer.echo(json.dumps({"action": "progress", **self._figures()}), err=True)

    def _line(self) -> str:
        tally = self.tally
        done = f"{human_bytes(tally.bytes)} of {human_bytes(tally.total_bytes)}"
        return f"{tally.media} of {tally.total_media} media, {done}"
