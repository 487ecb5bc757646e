"""What the executor asks of a rail: a way to trade.

A rail only proposes: it builds a transaction, and the signing gate decides whether it is the authorized one. What
landed is asked of the executor's own chain connection, never of the rail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from executor.authorization import Authorization

__all__ = ["Rail", "SendingRail"]


class Rail(Protocol):
    """A way to trade. Its author owes: no state between calls that a crash could lose, and no key of the user's."""

    @property
    def name(self) -> str:
        """What `FireRequest.rail` calls it."""

    @property
    def cosigners(self) -> AbstractSet[str]:
        """Who signs its transactions besides the session key, base58: they have signed what `build` returns."""

    async def build(self, authorization: Authorization, blockhash: str) -> bytes:
        """Return the transaction that carries out `authorization`, complete but for the session key's signature.

        Wire format of a v0 transaction: the session key pays the fee, so its (empty) signature stands first; the
        cosigners have signed; the recent blockhash is `blockhash`; the memo is `authorization.memo`. It is called once
        for an execution, and has seconds: the authorization doesn't live longer than a minute.

        Raises:
            ChainError: it can't offer the trade. The text is told to the user: no secret may stand in it.

        """


@runtime_checkable
class SendingRail(Protocol):
    """What a rail has besides if it sends in a way of its own: by a relay, say, that hides trades until they land."""

    async def send(self, transaction: bytes) -> None:
        """Hand over the signed transaction, unchanged, as `Chain.send` does.

        Raises:
            ChainError: it wasn't taken. It may have landed all the same: only the executor's chain tells.

        """
