import asyncio
import socket

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from mediarepo.web.listening import accept_from


class Unlucky(web.Server):
    """Cannot serve its first connection, as when a client leaves while its connection is set up."""

    unlucky = True

    def __call__(self) -> RequestHandler:
        if self.unlucky:
            self.unlucky = False
            raise OSError("the client has left")
        return super().__call__()


async def answer(_: web.BaseRequest) -> web.Response:
    return web.Response(text="served")


async def ask(address: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(30):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_connection_that_cannot_be_served_ends_no_other() -> None:
    runner = web.ServerRunner(Unlucky(answer))
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = listener.getsockname()
        await accept_from(runner, listener, shared=True)
        answers = [await ask(address) for _ in range(3)]
    await runner.cleanup()

    assert answers[0] == b""
    assert [b"served" in one for one in answers[1:]] == [True, True]
