"""Errors of import sources."""


class SourceError(Exception):
    """The source cannot be read; the message tells the operator why."""


class SourceConfigError(SourceError):
    """The source's configuration file is not what it should be, or says something we cannot follow."""


class SourceUnavailableError(SourceError):
    """The source does not answer just now; asking again later may work."""


class BytesVanishedError(SourceError):
    """Bytes that were there when they were looked for are gone, or have another length now."""


class ListingRefusedError(SourceError):
    """The bucket answers, and does not let itself be listed; single objects may still be had."""
