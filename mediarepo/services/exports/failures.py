"""What the failure to export one media means for the export: refused, missing, damaged, or not just now."""

from mediarepo.errors import UnavailableError
from mediarepo.exporters.destination import RowRefusedError
from mediarepo.model.exports import ExportMedia, ExportOutcome, ExportResult
from mediarepo.services.exports.contents import DamagedContentError
from mediarepo.storage.errors import ObjectMissingError

ITEM_ERRORS = (RowRefusedError, DamagedContentError, UnavailableError)
"""Errors that concern one media; any other ends the export."""


def failed_result(media: ExportMedia, error: Exception) -> ExportResult:
    """Return the result for one of `ITEM_ERRORS`; raises any other error again."""
    match error:
        case RowRefusedError():
            return ExportResult(media, ExportOutcome.REFUSED, str(error))
        case ObjectMissingError():
            return ExportResult(media, ExportOutcome.MISSING, "its content is lost")
        case DamagedContentError():
            return ExportResult(media, ExportOutcome.DAMAGED, str(error))
        case UnavailableError():
            return ExportResult(media, ExportOutcome.FAILED, str(error) or error.message)
    raise error
