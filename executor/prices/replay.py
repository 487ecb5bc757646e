"""A market for demos and tests: recorded, or generated from a seed, and played at any speed.

A recording is what a price stream sent: one `price` frame a line. Played, its ticks keep their order, prices and
distances (divided by the speed), and carry the time at which they are played: a tick of last year would be stale.

>>> import itertools, random
>>> [str(tick.price_usd) for tick in itertools.islice(generated(random.Random(1), {"SOL": Decimal(150)}), 2)]
['149.96', '150.02']
"""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from executor.errors import ExecutorError
from executor.prices.protocol import FrameError, Tick, decode_from_server

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["MARKET", "RecordingError", "generated", "play", "played", "read_recording", "recorded", "retimed"]

MARKET: Final = {"SOL": Decimal("178.41"), "BTC": Decimal(97_000), "ETH": Decimal(1_830), "JTO": Decimal("1.92")}
"""What a generated market begins with, in USD."""

STEP_BPS_MAX: Final = 5
GENERATED_EVERY_MS: Final = 250


class RecordingError(ExecutorError):
    """A line of a recording is no `price` frame; the text names the line."""


def recorded(lines: Iterable[bytes]) -> Iterator[Tick]:
    """Yield the ticks of a recording.

    Raises:
        RecordingError: a line is no `price` frame, or its time is before that of the line above.

    """
    last_ms = 0
    for number, line in enumerate(lines, 1):
        try:
            tick = decode_from_server(line)
        except FrameError as error:
            raise RecordingError(f"line {number}: {error}") from None
        if not isinstance(tick, Tick) or tick.ts_ms < last_ms:
            raise RecordingError(f"line {number} is no price, or is before the line above")
        last_ms = tick.ts_ms
        yield tick


def read_recording(path: Path) -> list[Tick]:
    """Return the ticks of the recording at `path`. Raises RecordingError; OSError if it can't be read."""
    with path.open("rb") as lines:
        try:
            return list(recorded(lines))
        except RecordingError as error:
            raise RecordingError(f"`{path}`: {error}") from None


def generated(chance: random.Random, market: Mapping[str, Decimal] = MARKET) -> Iterator[Tick]:
    """Yield a random walk of each symbol in turn, for ever: the same for the same state of `chance`. It starts at 0."""
    prices = dict(market)
    for round_number in count():
        for symbol, price in prices.items():
            step = price * chance.randint(-STEP_BPS_MAX, STEP_BPS_MAX) / 10_000
            prices[symbol] = max(Decimal("0.01"), (price + step).quantize(Decimal("0.01")))
            yield Tick(symbol, prices[symbol], round_number * GENERATED_EVERY_MS, "generated", stale=False)


def retimed(ticks: Iterable[Tick], speed: float, start_ms: int) -> Iterator[Tick]:
    """Yield `ticks` as they are to be played from `start_ms` on, `speed` times as fast."""
    first_ms: int | None = None
    for tick in ticks:
        if first_ms is None:
            first_ms = tick.ts_ms
        yield tick._replace(ts_ms=start_ms + int((tick.ts_ms - first_ms) / speed))


def played(
    ticks: Iterable[Tick], publish: Callable[[Tick], None], *, speed: float = 1.0
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return what plays `ticks` from when it is called: a feed of a hub (`executor.prices.socket.running`)."""
    return lambda: play(ticks, publish, speed=speed, now_ms=lambda: time.time_ns() // 1_000_000)


async def play(
    ticks: Iterable[Tick], publish: Callable[[Tick], None], *, speed: float, now_ms: Callable[[], int]
) -> None:
    """Publish `ticks` at their times, `speed` times as fast, from now on until they end."""
    for tick in retimed(ticks, speed, now_ms()):
        wait_ms = tick.ts_ms - now_ms()
        await asyncio.sleep(max(0, wait_ms) / 1_000)
        publish(tick)
