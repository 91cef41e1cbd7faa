"""Middlewares: CORS preflights, errors as JSON, response headers, metrics."""

import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from mediarepo.errors import (
    BadRequestError,
    MatrixError,
    UnrecognizedMethodError,
    UnrecognizedPathError,
    UnsupportedEncodingError,
)
from mediarepo.model.requester import begin_request
from mediarepo.outbound.probe import PROBE_HEADER
from mediarepo.telemetry.logs import error_text
from mediarepo.web.access_log import REQUEST_ID, begin_record, received_bytes, sent_bytes, write_access_line
from mediarepo.web.error_responses import error_body, error_headers, error_response_for
from mediarepo.web.http.headers import EVERY_RESPONSE, PREFLIGHT
from mediarepo.web.http.responses import json_response
from mediarepo.web.keys import IN_FLIGHT, METRICS, PROXIES, RECORD
from mediarepo.web.probe import answer_probe
from mediarepo.web.rate_limits import count_bytes

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SERVER_ERRORS = 500
_OPERATORS = frozenset({"/metrics", "/health/live", "/health/ready"})
_CLIENT_LEFT = 499
"""A status for the figures only, as nginx counts clients that did not wait."""


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count and time each request."""
    in_flight, record = request.app[IN_FLIGHT], begin_record(request)
    begin_request(request.app[PROXIES].client_network(request), record)
    endpoint = endpoint_name(request)
    with in_flight.request(shown=endpoint not in _OPERATORS):
        response = await handler(request)
    if in_flight.draining and not response.prepared:
        response.force_close()
    count_bytes(request, response)
    request.app[METRICS].request(
        endpoint,
        request.method,
        response.status,
        seconds=time.perf_counter() - record.began,
        received_bytes=received_bytes(request),
        sent_bytes=sent_bytes(request, response),
    )
    if endpoint not in _OPERATORS:
        write_access_line(request, response, endpoint)
    return response


@web.middleware
async def answer_in_matrix(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer CORS preflights, and turn every error into the spec's JSON."""
    if request.method == "OPTIONS":
        return web.Response(status=204, headers=PREFLIGHT)
    try:
        if "Transfer-Encoding" in request.headers:
            _check_transfer_encoding(request)
        return await handler(request)
    except MatrixError as exc:
        return _refuse(request, exc)
    except web.HTTPException as exc:
        return _refuse(request, _in_matrix(exc))
    except ConnectionError:
        return _to_nobody(request)
    except Exception:  # logged; the client gets 500 without detail
        log.exception("unexpected_error", endpoint=endpoint_name(request))
        return json_response({"errcode": "M_UNKNOWN", "error": "Internal server error"}, status=500)


def _check_transfer_encoding(request: web.Request) -> None:
    """Refuse what would be stored as it came over the wire instead of as it was meant."""
    codings = ",".join(request.headers.getall("Transfer-Encoding")).split(",")
    if [coding.strip().lower() for coding in codings if coding.strip()] != ["chunked"]:
        raise UnsupportedEncodingError("the only supported transfer encoding is chunked")


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every response has, errors included, as the first byte is about to be sent."""
    for name, value in EVERY_RESPONSE.items():
        response.headers[name] = value
    record = request.get(RECORD)
    if record is not None:
        record.first_byte = time.perf_counter()
        response.headers[REQUEST_ID] = record.request_id
    if PROBE_HEADER in request.headers:
        answer_probe(request, response)


def endpoint_name(request: web.Request) -> str:
    """Return the route's name, so that metrics have few labels and logs no ids."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


def _in_matrix(exc: web.HTTPException) -> MatrixError:
    if isinstance(exc, web.HTTPMethodNotAllowed):
        return UnrecognizedMethodError("Unrecognized request", allowed=frozenset(exc.allowed_methods))
    if isinstance(exc, web.HTTPNotFound):
        return UnrecognizedPathError("Unrecognized request")
    return BadRequestError(exc.reason or "the request is malformed")


def _refuse(request: web.Request, error: MatrixError) -> web.Response:
    body, status = error_body(error), error_response_for(error).status
    request[RECORD].errcode = str(body["errcode"])
    request.app[METRICS].refused(type(error).__name__)
    if status >= _SERVER_ERRORS:
        log.warning(
            "request_failed", endpoint=endpoint_name(request), status=status, reason=str(error), cause=_cause(error)
        )
    response = json_response(body, status=status, headers=error_headers(error))
    if request.can_read_body and not request.content.at_eof():
        response.force_close()
    return response


def _to_nobody(request: web.Request) -> web.Response:
    """Answer a client that has left: nothing is sent any more, and nothing is worth a line in the log."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=_CLIENT_LEFT)


def _cause(error: MatrixError) -> str | None:
    return None if error.__cause__ is None else error_text(error.__cause__)
