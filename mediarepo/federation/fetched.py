"""Content that another server sends, in either of the two forms it comes in."""

from mediarepo.federation.disposition import parse_upload_name
from mediarepo.federation.fetch_failures import translated
from mediarepo.federation.multipart import MixedBody, MultipartError, PartHeaders
from mediarepo.model.declared import content_type_or_default, upload_name_or_none
from mediarepo.outbound.client import Answer


class PlainContent:
    """A body that is the content itself (legacy endpoint, or where a redirect led to)."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.content_type = content_type_or_default(answer.headers.get("Content-Type"))
        self.upload_name = upload_name_or_none(parse_upload_name(answer.headers.get("Content-Disposition")))
        self.size_bytes = answer.declared_bytes
        self.at_most_bytes = answer.declared_bytes

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the end."""
        with translated():
            return await self._answer.read()


class MixedContent:
    """The file's part of a multipart/mixed body; how long it is shows only at its end, unless the part says so.

    What the part says is held to: the last bytes are given only once the end has come where it should.
    """

    def __init__(self, answer: Answer, body: MixedBody, part: PartHeaders) -> None:
        self._body = body
        self.content_type = content_type_or_default(part.content_type)
        outer = answer.headers.get("Content-Disposition")  # where some servers say it
        name = parse_upload_name(part.content_disposition) or parse_upload_name(outer)
        self.upload_name = upload_name_or_none(name)
        self.size_bytes = part.size_bytes
        self._left = part.size_bytes
        self.at_most_bytes = answer.declared_bytes if part.size_bytes is None else part.size_bytes

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the end."""
        with translated():
            piece = await self._body.read()
            if self._left is None:
                return piece
            self._left -= len(piece)
            ends = not self._left and not (piece and await self._body.read())
            if self._left < 0 or (not ends and not (piece and self._left)):
                raise MultipartError("the file is not as long as its part says")
            return piece
