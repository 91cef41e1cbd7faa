"""What keeps the embedded servers from starting."""


class EmbeddedError(Exception):
    """A server of our own cannot run; the message tells the operator why, in one line or with the end of its log."""
