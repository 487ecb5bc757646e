"""Prefetch: what the price source says of a fire's mints, asked for before the wallet's lock.

A price source is somebody else's code. It may be slow, raise, answer with nonsense or call the guard, so it never runs
in a transaction: there it would hold up every change that shares it. Which mints a fire needs is known from the
agent's activation or an earlier fire; under the lock the decision makes sure that these are still the right ones, and
that they were asked for lately. If not, it changes nothing and raises `Lacking`; then what it lacks is asked for,
outside the lock, and the decision is made again. For one decision the source is asked at most `ASKS_MAX` times.

What a source does wrong harms the fire that asked, and no other: for that one, nobody quotes the mint.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from executor.assets import NATIVE_MINT, Asset
from executor.errors import ExecutorError
from executor.prices.quote import Quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from executor.authorization import Authorization
    from executor.prices.quote import PriceSource
    from executor.request import FireRequest

__all__ = ["Lacking", "Prefetch", "Prefetched"]

log = logging.getLogger("executor.guard")

ASKS_MAX: Final = 2
"""How often the source is asked for one decision: again only for another permit, or where it took too long."""

ASKED_S_MAX: Final = 1.0
"""How long before the decision the source may have been asked, whatever the age of its quotes, inclusive."""

TOGETHER_S_MAX: Final = 0.25
"""Many fires are decided together once asking for them took this long: the first of them mustn't wait for too long."""

TOGETHER_MAX: Final = 512
"""As many fires are decided together: the last of them mustn't wait for a second either."""

QUOTES_MAX: Final = 64
"""How many quotes of one mint a source may give: every entry keeps them."""

SOURCE_CHARS_MAX: Final = 200
"""How long the name in `Quote.source` may be: every entry keeps it."""

INT_MAX: Final = 2**53 - 1
"""The largest integer that JSON readers agree on."""

AGENTS_MAX: Final = 10_000
"""How many agents' mints are remembered: a fire of one that was forgotten finds them under the lock."""

FAILING_MAX: Final = 1_000
"""How many mints are remembered as failing, so that each is logged once."""

T = TypeVar("T")


class Lacking(ExecutorError):
    """A decision can't be made by the quotes that it was given: nothing was changed, and `Prefetch` asks for others."""

    def __init__(self, mints: tuple[str, ...], whitelist: Mapping[str, Asset]) -> None:
        super().__init__("the quotes are of other mints, or were asked for too long ago")
        self.mints = mints
        self.whitelist = whitelist


class Prefetched(NamedTuple):
    """What the source said for one decision."""

    by_mint: Mapping[str, tuple[Quote, ...]]
    asked_at_s: float
    """When the first was asked for, by the monotonic clock."""
    is_last: bool
    """Nothing more will be asked for."""
    monotonic_s: Callable[[], float]

    def quotes(self, request: FireRequest, whitelist: Mapping[str, Asset]) -> tuple[Quote, ...]:
        """Return the quotes that the decision on `request` counts; none, if they are unfit and these were the last.

        The caller holds the wallet's lock, and got `whitelist` under it.

        Raises:
            Lacking: they are of other mints, or were asked for too long ago.

        """
        legs = [whitelist.get(request.sell), whitelist.get(request.buy)]
        mints = _with_fees(*[asset.mint for asset in legs if asset])
        is_recent = self.monotonic_s() - self.asked_at_s <= ASKED_S_MAX
        if is_recent and self.by_mint.keys() >= set(mints):
            return tuple([quote for mint in mints for quote in self.by_mint[mint]])
        if self.is_last:
            return ()
        raise Lacking(mints, whitelist)


class Prefetch:
    """Asks one price source for the quotes of fires. Threads may share it; no call holds a lock while it asks."""

    def __init__(self, source: PriceSource, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._mints: dict[tuple[str, str], Mapping[str, str]] = {}  # in the order of their use
        self._failing: set[str] = set()

    def decide(self, fire: FireRequest | Authorization, decide: Callable[[Prefetched], T]) -> T:
        """Return what `decide` does, given the quotes that it needs. It is called up to three times."""
        mints = self._hint(fire)
        asks = 0
        while True:
            if mints is None:
                fetched = self._nothing()
            else:
                asks += 1
                fetched = self._fetch(mints, {}, is_last=asks == ASKS_MAX)
            try:
                return decide(fetched)
            except Lacking as lacking:
                mints = lacking.mints
                self.learn(fire.wallet, fire.agent_id, lacking.whitelist)

    def decide_many(
        self,
        fires: Sequence[FireRequest],
        decide: Callable[[Sequence[tuple[int, Prefetched]]], Sequence[T | Exception]],
    ) -> list[T | Exception]:
        """Return what `decide` does for each of `fires`, in their order; it is given their numbers and quotes.

        A mint is asked for once for all that are decided together: up to `TOGETHER_MAX`. Fires whose source is slow are
        decided apart from the others the second time.
        """
        answers: dict[int, T | Exception] = {}
        mints = dict(enumerate(map(self._hint, fires)))
        unknown = [(number, self._nothing()) for number, known in mints.items() if known is None]

        def take(numbered: Sequence[tuple[int, Prefetched]]) -> None:
            """Decide on some, and learn from those that lack something."""
            decided = zip(numbered, decide(numbered) if numbered else (), strict=True)
            for (number, _fetched), answer in decided:
                if isinstance(answer, Lacking):
                    mints[number] = answer.mints
                    self.learn(fires[number].wallet, fires[number].agent_id, answer.whitelist)
                else:
                    answers[number] = answer

        take(unknown)
        took_s = dict.fromkeys((number for number in mints if number not in answers), 0.0)
        for asks in range(1, ASKS_MAX + 1):
            # Who took long goes first: those that come after it are decided apart, and wait for nobody.
            waiting = deque(sorted(took_s, key=took_s.__getitem__, reverse=True))
            while waiting:
                began_s = now_s = self._monotonic_s()
                together: list[tuple[int, Prefetched]] = []
                asked: dict[str, tuple[float, tuple[Quote, ...]]] = {}
                while waiting and len(together) < TOGETHER_MAX and now_s - began_s <= TOGETHER_S_MAX:
                    number = waiting.popleft()
                    fetched = self._fetch(mints[number] or (), asked, is_last=asks == ASKS_MAX)
                    together.append((number, fetched))
                    before_s, now_s = now_s, self._monotonic_s()
                    took_s[number] = now_s - before_s
                take(together)
            took_s = {number: took for number, took in took_s.items() if number not in answers}
        return [answers[number] for number in range(len(fires))]

    def learn(self, wallet: str, agent_id: str, whitelist: Mapping[str, Asset]) -> None:
        """Take it as a hint that the agent's permit allows `whitelist`, by its names."""
        mints = {name: asset.mint for name, asset in whitelist.items()}
        with self._lock:
            self._mints.pop((wallet, agent_id), None)
            self._mints[(wallet, agent_id)] = mints
            while len(self._mints) > AGENTS_MAX:
                del self._mints[next(iter(self._mints))]

    def _hint(self, fire: FireRequest | Authorization) -> tuple[str, ...] | None:
        """Return the mints that the decision will probably need; None if nobody knows.

        Those of an authorization are its own: it is held against the entry that it is from under the lock.
        """
        sell, buy = fire.sell, fire.buy
        if type(sell) is Asset and type(buy) is Asset:
            return _with_fees(sell.mint, buy.mint)
        key = (fire.wallet, fire.agent_id)
        with self._lock:
            known = self._mints.pop(key, None)
            if known is None:
                return None
            self._mints[key] = known
        return _with_fees(*[known[name] for name in (sell, buy) if type(name) is str and name in known])

    def _nothing(self) -> Prefetched:
        return Prefetched({}, 0.0, is_last=False, monotonic_s=self._monotonic_s)

    def _fetch(
        self, mints: Iterable[str], asked: dict[str, tuple[float, tuple[Quote, ...]]], *, is_last: bool
    ) -> Prefetched:
        """Ask for `mints`, but for those in `asked`, to which they are added with the time before the question."""
        by_mint: dict[str, tuple[Quote, ...]] = {}
        first_s = self._monotonic_s()
        for mint in mints:
            if mint not in asked:
                asked[mint] = (self._monotonic_s(), self._ask(mint))
            asked_at_s, by_mint[mint] = asked[mint]
            first_s = min(first_s, asked_at_s)
        return Prefetched(by_mint, first_s, is_last, self._monotonic_s)

    def _ask(self, mint: str) -> tuple[Quote, ...]:
        """Return what the source says of `mint`; nothing, if any of it is unfit: what is left out may be the highest.

        Whatever interrupts the program, such as KeyboardInterrupt, is no fault of the source.
        """
        try:
            quotes = tuple(islice(self._source.quotes(mint), QUOTES_MAX + 1))
            fault = _fault(mint, quotes)
        except Exception as raised:  # noqa: BLE001 - it is somebody else's code, and its fire is refused
            quotes, fault = (), _said(raised)
        if fault is not None:
            self._tell(mint, fault)
            return ()
        if self._failing:
            with self._lock:
                self._failing.discard(mint)
        return quotes

    def _tell(self, mint: str, fault: str) -> None:
        """Log the fault once, until the source answers for the mint again."""
        with self._lock:
            if mint in self._failing or len(self._failing) >= FAILING_MAX:
                return
            self._failing.add(mint)
        log.warning("the price source failed for `%s`, of which nothing fires now: %s", mint, fault)


def _with_fees(*mints: str) -> tuple[str, ...]:
    """Return each of `mints` once, and that in which fees are paid."""
    return tuple(dict.fromkeys((*mints, NATIVE_MINT)))


def _fault(mint: str, quotes: Sequence[object]) -> str | None:
    """Return what keeps `quotes` from being counted and written down; None: nothing does."""
    if len(quotes) > QUOTES_MAX:
        return f"it gave more than {QUOTES_MAX} quotes"
    for quote in quotes:
        if type(quote) is not Quote:  # another class may check less
            return "it gave something other than a quote"
        if quote.mint != mint:
            return "it gave a quote of another mint"
        if not (-INT_MAX <= quote.at_ms <= INT_MAX and quote.max_age_ms <= INT_MAX):
            return "it gave a quote whose times no entry can hold"
        if len(quote.source) > SOURCE_CHARS_MAX:
            return f"it named a source in more than {SOURCE_CHARS_MAX} characters"
        quote.source.encode()  # raises for half of a surrogate pair
    return None


def _said(fault: Exception) -> str:
    """Return what `fault` says in one line; that may be anything, and may fail too."""
    try:
        said = " ".join(str(fault).split())
    except Exception:  # noqa: BLE001 - as above
        said = ""
    return said[:SOURCE_CHARS_MAX] or type(fault).__name__
