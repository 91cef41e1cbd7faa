import socket
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from mediarepo.storage.errors import S3Location, explain_error_response, explain_failure, parse_error_response
from tests.unit.storage.provider_errors import PROVIDER_ERRORS

PLACE = S3Location(endpoint_url="https://s3.example.org", region="us-east-1", bucket="media")


@pytest.mark.parametrize(("provider", "status", "body", "words"), PROVIDER_ERRORS)
def test_a_providers_error_becomes_the_operators_words(provider: str, status: int, body: str, words: str) -> None:
    told = explain_error_response(parse_error_response(status, body.encode()), PLACE)
    assert words in told, provider


def test_nothing_of_a_signature_is_shown() -> None:
    body = b"<Error><Code>SignatureDoesNotMatch</Code><SignatureProvided>abcdef</SignatureProvided></Error>"
    assert "abcdef" not in explain_error_response(parse_error_response(403, body), PLACE)


def connector_error(cause: OSError) -> aiohttp.ClientConnectorError:
    key = ConnectionKey("s3.example.org", 443, True, True, None, None, None)
    return aiohttp.ClientConnectorError(key, cause)


CERTIFICATE = ssl.SSLCertVerificationError(1, "certificate verify failed")
CERTIFICATE.verify_message = "self-signed certificate"


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (connector_error(ConnectionRefusedError(111, "refused")), "nothing listens there"),
        (connector_error(socket.gaierror(-2, "Name or service not known")), "its host name does not resolve"),
        (connector_error(CERTIFICATE), "its certificate is not trusted (self-signed certificate): set ca_file"),
        (connector_error(ssl.SSLError(1, "WRONG_VERSION_NUMBER")), "it does not speak TLS there"),
        (aiohttp.ConnectionTimeoutError(), "no connection came about in time"),
        (TimeoutError(), "it did not answer in time"),
        (aiohttp.SocketTimeoutError(), "it did not answer in time"),
        (aiohttp.ServerDisconnectedError(), "it closed the connection without an answer"),
        (aiohttp.ClientOSError(104, "reset"), "cannot be reached: ClientOSError"),
        (aiohttp.ClientPayloadError(), "it stopped in the middle of an answer"),
        (OSError(113, "No route to host"), "cannot be reached: OSError"),
    ],
)
def test_a_failure_to_connect_becomes_the_operators_words(failure: Exception, words: str) -> None:
    assert words in explain_failure(failure, PLACE)


def test_the_cause_behind_a_failure_is_what_is_explained() -> None:
    failure = aiohttp.ClientOSError(104, "reset")
    failure.__cause__ = ConnectionResetError(104, "reset")
    assert "it closed the connection without an answer" in explain_failure(failure, PLACE)
