"""What keeps a server from serving at all."""


class ListenError(Exception):
    """An address cannot be listened on; the message says which and why."""
