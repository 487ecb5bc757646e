"""Many price streams in one process: `python -m tests.benchmarks.crowd PORT FIRST COUNT SYMBOLS`.

Client number n comes from loopback address n // 50 and wants symbol n % SYMBOLS (0: none). Once all are greeted it says
so in a line; then it answers each line on standard input with what it has received since the line before. A price is
the time at which it was published, in nanoseconds, so that its age can be told.
"""

import asyncio
import json
import sys
import time

AT_ONCE = 200
MASK = b"\x00" * 4  # a mask that changes nothing is a mask


def text_frame(text):
    data = text.encode()
    return bytes((0x81, 0x80 | len(data))) + MASK + data


PONG = text_frame('{"type":"pong"}')


class Client(asyncio.Protocol):
    def __init__(self, number, symbol, ages_ms):
        self.number = number
        self.symbol = symbol
        self.ages_ms = ages_ms
        self.greeted = asyncio.get_running_loop().create_future()
        self.rest = b""
        self.head = True

    def connection_made(self, transport):
        self.transport = transport
        transport.write(
            f"GET /v1/stream?api_key=quant-{self.number // 25} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            "\r\n".encode()
        )

    def connection_lost(self, error):
        if not self.greeted.done():
            self.greeted.set_exception(error or ConnectionError("closed"))

    def data_received(self, data):
        data = self.rest + data
        if self.head:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self.rest = head
                return
            self.head = False
            if not head.startswith(b"HTTP/1.1 101"):
                self.greeted.set_result(head.split()[1].decode())
                return
        while len(data) > 2:
            length, start = data[1], 2
            if length == 126:
                length, start = int.from_bytes(data[2:4], "big"), 4
            if len(data) < start + length:
                break
            self.take(data[start : start + length])
            data = data[start + length :]
        self.rest = data

    def take(self, message):
        if message.startswith(b'{"type":"price"'):
            at_ns = int(message.partition(b'"priceUsd":')[2].partition(b",")[0])
            self.ages_ms.append((time.time_ns() - at_ns) / 1e6)
        elif message.startswith(b'{"type":"ping"'):
            self.transport.write(PONG)
        elif message.startswith(b'{"type":"hello"'):
            if self.symbol is not None:
                self.transport.write(text_frame(f'{{"type":"subscribe","assets":["{self.symbol}"]}}'))
            self.greeted.set_result("101")
        elif not self.greeted.done():
            self.greeted.set_result(message.decode(errors="replace"))


def address(number):
    return f"127.0.{1 + number // 50 // 250}.{1 + number // 50 % 250}"


async def main(port, first, count, symbols):
    loop, gate, ages_ms, answers = asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE), [], {}

    async def join(number):
        async with gate:
            symbol = f"S{number % symbols}" if symbols else None
            _, client = await loop.create_connection(
                lambda: Client(number, symbol, ages_ms), "127.0.0.1", port, local_addr=(address(number), 0)
            )
            answer = await client.greeted
            answers[answer] = answers.get(answer, 0) + 1
            return client

    clients = await asyncio.gather(*(join(number) for number in range(first, first + count)))
    print(json.dumps(answers), flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        ages = sorted(ages_ms)
        ages_ms.clear()
        p99 = ages[len(ages) * 99 // 100] if ages else None
        print(json.dumps({"received": len(ages), "p99_ms": p99, "max_ms": ages[-1] if ages else None}), flush=True)
    assert clients


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
