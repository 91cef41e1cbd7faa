"""The access log: one line a request, with what finds it in other logs and in the database.

Never in it: access tokens, file names, query strings. Its fields are explained in docs/logs.md.
"""

from time import perf_counter

from aiohttp import web

from mediarepo.config.server import LogConfig
from mediarepo.model.request_record import RequestRecord, Stage, parse_request_id
from mediarepo.web.keys import ACCESS_LOG, PROXIES, RECORD, REQUEST_IDS, SETTINGS

REQUEST_ID = "X-Request-Id"


def begin_record(request: web.Request) -> RequestRecord:
    """Begin the record of a request; its id is a trusted proxy's, or a new one."""
    given = request.headers.get(REQUEST_ID)
    if given is not None:
        given = parse_request_id(given) if request.app[PROXIES].trusts_sender(request) else None
    record = RequestRecord(given or request.app[REQUEST_IDS].make())
    request[RECORD] = record
    return record


def received_bytes(request: web.Request) -> int:
    """Return how many bytes of the request's body have come."""
    return request.content.total_bytes


def sent_bytes(request: web.Request, response: web.StreamResponse) -> int:
    """Return how many bytes were sent, or will be, by us or by a proxy for us."""
    handed_over = request[RECORD].handed_over_bytes
    if handed_over:
        return handed_over
    if response.prepared:
        return request.writer.output_size
    return 0 if request.method == "HEAD" else response.content_length or 0


def write_access_line(request: web.Request, response: web.StreamResponse, endpoint: str) -> None:
    """Log a request that was answered, if that is configured."""
    config: LogConfig = request.app[SETTINGS].log
    if not config.access:
        return
    record, now = request[RECORD], perf_counter()
    fields: dict[str, object] = {
        "request_id": record.request_id,
        "method": request.method,
        "route": endpoint,
        "status": response.status,
        "errcode": record.errcode,
        "user_id": record.user_id,
        "origin": record.origin,
        "homeserver": record.homeserver,
        "mxc": None if record.mxc is None else str(record.mxc),
        "object_key": record.object_key,
        "client": request.app[PROXIES].client_address(request) or None if config.client_address else None,
        "bytes_in": received_bytes(request) or None,
        "bytes_out": sent_bytes(request, response),
        "ms": _ms(now - record.began),
        "first_byte_ms": _ms((record.first_byte or now) - record.began),
        "identity_ms": _ms(record.seconds[Stage.IDENTITY]) or None,
        "database_ms": _ms(record.seconds[Stage.DATABASE]) or None,
        "s3_ms": _ms(record.seconds[Stage.S3]) or None,
    }
    request.app[ACCESS_LOG].write("request", {name: value for name, value in fields.items() if value is not None})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
