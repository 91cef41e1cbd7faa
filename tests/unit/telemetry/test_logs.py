import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from mediarepo.config.server import LogConfig, LogFormat, LogLevel
from mediarepo.telemetry.logs import LineWriter, set_up_logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def fail(token: str) -> None:
    raise ValueError(f"a token of {len(token)} characters")


@pytest.mark.parametrize("log_format", list(LogFormat))
def test_tracebacks_show_no_local_variables(log_format: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs(LogConfig(format=log_format))
    secret = "very-" + "secret"
    try:
        fail(secret)
    except ValueError:
        structlog.get_logger("test").exception("it_failed")

    told = capsys.readouterr().err
    assert "ValueError" in told
    assert secret not in told


def test_json_lines_are_one_object_each_and_libraries_speak_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs(LogConfig(format=LogFormat.JSON))
    structlog.get_logger("test").info("uploaded", size_bytes=3)
    logging.getLogger("library").warning("be %s", "careful")

    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["event"], first["size_bytes"], first["level"]) == ("uploaded", 3, "info")
    assert (second["event"], second["level"]) == ("be careful", "warning")


def test_what_is_less_important_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs(LogConfig())
    structlog.get_logger("test").debug("detail")

    assert capsys.readouterr().err == ""


def test_the_quick_way_to_a_line_looks_as_the_usual_one(capsys: pytest.CaptureFixture[str]) -> None:
    config = LogConfig(format=LogFormat.JSON)
    set_up_logs(config)
    structlog.get_logger("test").info("request", status=200)
    LineWriter(config).write("request", {"status": 200})

    usual, quick = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert {**usual, "timestamp": ""} == {**quick, "timestamp": ""}
    assert len(usual["timestamp"]) == len(quick["timestamp"])


@pytest.mark.parametrize("log_format", list(LogFormat))
def test_the_quick_way_keeps_to_the_level(log_format: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    config = LogConfig(format=log_format, level=LogLevel.WARNING)
    set_up_logs(config)
    LineWriter(config).write("request", {"status": 200})

    assert capsys.readouterr().err == ""


def test_a_line_that_cannot_be_written_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    config, closed = LogConfig(format=LogFormat.JSON), io.StringIO()
    set_up_logs(config)
    monkeypatch.setattr("sys.stderr", closed)
    writer = LineWriter(config)
    writer.write("request", {"status": 200})
    written = closed.getvalue()
    closed.close()

    writer.write("request", {"status": 404})
    assert json.loads(written)["status"] == 200
