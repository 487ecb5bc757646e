"""One state of the whole ledger, read wallet by wallet while others go on writing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from executor.ledger import statements as sql
from executor.ledger.wallet import EVERYBODY, TREASURY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from executor.ledger.statements import Cursor
    from executor.ledger.wallet import WalletView
    from executor.limits import Limits

__all__ = ["Snapshot"]


class Snapshot:
    """What `Ledger.snapshot` lends, to one thread. It reads as the ledger does, but all in one transaction."""

    def __init__(self, id_: str, first_limits: Limits, cursor: Cursor, look: Callable[[str], WalletView]) -> None:
        self.id = id_
        self.first_limits = first_limits
        self._cursor = cursor
        self._look = look

    @contextmanager
    def view(self, wallet: str) -> Iterator[WalletView]:
        """Read `wallet` as it stood. Raises as `Ledger.view` does."""
        yield self._look(wallet)

    def wallets(self) -> Iterator[str]:
        """Yield every wallet that the ledger had something of, in order: one at a time, since they may be many."""
        after: str | None = ""
        while after is not None:
            (after,) = self._cursor.one(sql.NEXT_WALLET, after=after) or (None,)
            if after not in (None, EVERYBODY, TREASURY):
                yield after
