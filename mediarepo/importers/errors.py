"""Errors of import sources."""


class SourceError(Exception):
    """The source cannot be read; the message says why."""


class SourceConfigError(SourceError):
    """The source's configuration file is invalid, or has something that is not supported."""


class SourceUnavailableError(SourceError):
    """The source does not answer now; a retry later may work."""


class BytesVanishedError(SourceError):
    """Bytes that were found are gone, or have another length now."""


class ListingRefusedError(SourceError):
    """The bucket refuses to be listed; single objects may still be readable."""
