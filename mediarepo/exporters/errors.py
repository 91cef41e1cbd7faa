"""What stands in the way of an export."""


class ExportError(Exception):
    """The export cannot begin or go on; the message tells the operator why."""


class RowRefusedError(Exception):
    """The database does not take this one row; the message tells why."""


class RowAppearedError(Exception):
    """Somebody else wrote the row meanwhile; looking again tells what it says."""
