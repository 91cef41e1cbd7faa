"""mxc:// addresses: server name and media id (client-server API, "Matrix Content URIs")."""

import re
from dataclasses import dataclass

from mediarepo.errors import InvalidParamError

SERVER_NAME_MAX_CHARS = 255
MEDIA_ID_MAX_CHARS = 255

_IPV4 = r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}"
_IPV6 = r"\[[0-9A-Fa-f:.]{2,45}\]"
_DNS_NAME = r"[0-9A-Za-z.-]{1,255}"
_SERVER_NAME = re.compile(rf"(?:{_IPV4}|{_IPV6}|{_DNS_NAME})(?::\d{{1,5}})?", re.ASCII)
_PORT = re.compile(r":[0-9]*\Z", re.ASCII)
_MEDIA_ID = re.compile(r"[A-Za-z0-9._~=-]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Mxc:
    """A media address; made from outside text by `parse_mxc` only (client-server API, mxc URIs)."""

    server_name: str
    media_id: str

    def __str__(self) -> str:
        return f"mxc://{self.server_name}/{self.media_id}"


def parse_server_name(text: str) -> str:
    """Parse a server name (Matrix appendices, server name grammar). Raises InvalidParamError when it is not one."""
    if len(text) > SERVER_NAME_MAX_CHARS or not _SERVER_NAME.fullmatch(text) or not text.strip("."):
        raise InvalidParamError("the server name is not a valid Matrix server name")
    return text


def spellings(server_name: str) -> tuple[str, str]:
    """Return the forms a server may be listed under: lower case, no final dot, with and without its port."""
    text = server_name.lower()
    name = _PORT.sub("", text)
    host = name.rstrip(".")
    return host + text[len(name) :], host


def parse_media_id(text: str) -> str:
    """Parse a media id of URL-safe characters; wider than today's grammar, since old servers made others.

    Raises InvalidParamError when it has other characters, or is empty.
    """
    if not _MEDIA_ID.fullmatch(text) or text in {".", ".."}:
        raise InvalidParamError("the media id may only contain A-Z, a-z, 0-9, '_' and '-'")
    return text


def parse_mxc(server_name: str, media_id: str) -> Mxc:
    """Parse two decoded path segments. Raises InvalidParamError when one is invalid."""
    return Mxc(parse_server_name(server_name), parse_media_id(media_id))
