"""Clients in processes of their own, cheap enough to measure the server: many slow ones, and a few ordinary ones.

python -m bench.slow_clients slow HOST:PORT COUNT BYTES_PER_S < request
python -m bench.slow_clients ordinary HOST:PORT WORKERS SECONDS < requests (JSON)
"""

import json
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

_TICKS_PER_S = 10
_RECEIVE_BUFFER_BYTES = 16 * 1024
_OK = b" 200 "


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def read_slowly(address: tuple[str, int], request: bytes, count: int, bytes_per_s: int) -> None:
    """Ask so many times at once, and read so many bytes a second of each until standard input ends."""
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        client.connect(address)
        client.sendall(request)
        client.setblocking(False)  # noqa: FBT003 - its only way
        clients.append(client)
    print("connected", flush=True)
    read, ended = [0] * count, set[int]()
    begun_s, tick = time.monotonic(), 0
    while not select.select([sys.stdin], [], [], max(0.0, begun_s + tick / _TICKS_PER_S - time.monotonic()))[0]:
        for number in range(tick % _TICKS_PER_S, count, _TICKS_PER_S):
            if number in ended:
                continue
            try:
                data = clients[number].recv(bytes_per_s)
            except BlockingIOError:
                continue
            except ConnectionError:
                data = b""
            if not data or (not read[number] and _OK not in data[:20]):
                ended.add(number)
            read[number] += len(data)
        tick += 1
    seconds = time.monotonic() - begun_s
    begun = sorted(size for number, size in enumerate(read) if number not in ended)
    print(
        json.dumps(
            {
                "reading": len(begun),
                "ended": len(ended),
                "median_bytes_per_s": begun[len(begun) // 2] / seconds if begun else 0,
                "least_bytes_per_s": begun[0] / seconds if begun else 0,
            }
        ),
        flush=True,
    )


@dataclass
class Load:
    """What ordinary clients do: each request of the list in turn, one after the other."""

    address: tuple[str, int]
    requests: Sequence[bytes]
    until_s: float
    times_s: list[float] = field(default_factory=list)
    errors: int = 0
    received: int = 0

    def work(self, first: int) -> None:
        """Ask on one kept connection until the time is over."""
        connection = socket.create_connection(self.address)
        buffer = bytearray(256 * 1024)
        number = first
        while time.monotonic() < self.until_s:
            begun_s = time.monotonic()
            connection.sendall(self.requests[number % len(self.requests)])
            status, size = _read_answer(connection, buffer)
            self.times_s.append(time.monotonic() - begun_s)
            self.received += size
            self.errors += _OK not in status
            number += 1
        connection.close()


def _read_answer(connection: socket.socket, buffer: bytearray) -> tuple[bytes, int]:
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(64 * 1024)
        if not data:
            raise ConnectionError("the server closed the connection")
        head += data
    head, _, body = head.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    rest = lengths[0] - len(body)
    while rest > 0:
        size = connection.recv_into(buffer)
        if not size:
            raise ConnectionError("the server closed the connection")
        rest -= size
    return head[:20], lengths[0]


def load_ordinarily(address: tuple[str, int], requests: Sequence[bytes], workers: int, seconds: float) -> None:
    """Run so many workers for so long, and tell what they saw."""
    load = Load(address, requests, time.monotonic() + seconds)
    threads = [threading.Thread(target=load.work, args=(number,)) for number in range(workers)]
    begun_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = sorted(load.times_s)
    took_s = time.monotonic() - begun_s
    print(
        json.dumps(
            {
                "requests": len(times),
                "rate": len(times) / took_s,
                "bytes_per_s": load.received / took_s,
                "p50_s": times[len(times) // 2],
                "p99_s": times[int(len(times) * 0.99)],
                "longest_s": times[-1],
                "errors": load.errors,
            }
        )
    )


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kind, address, count, amount = arguments
    said = sys.stdin.readline()
    if kind == "slow":
        read_slowly(_address(address), json.loads(said).encode(), int(count), int(amount))
    else:
        load_ordinarily(_address(address), [one.encode() for one in json.loads(said)], int(count), float(amount))


if __name__ == "__main__":
    main(sys.argv[1:])
