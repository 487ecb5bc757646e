"""The local rail: a market maker on the local chain, who swaps two tokens at the quoted price in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from solders.hash import Hash
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction

from executor.errors import ChainError
from executor.solana import memo, transfer_checked

if TYPE_CHECKING:
    from solders.instruction import Instruction
    from solders.keypair import Keypair

    from executor.assets import Asset
    from executor.authorization import Authorization
    from executor.prices.quote import PriceSource

__all__ = ["LocalRail"]


class LocalRail:
    """Trades against `maker`, whose accounts hold the tokens that it sells. Implements `executor.rails.Rail`."""

    name: Final = "local"

    def __init__(self, maker: Keypair, prices: PriceSource) -> None:
        self._maker = maker
        self.cosigners: Final = frozenset({str(maker.pubkey())})
        self._prices = prices

    async def build(self, authorization: Authorization, blockhash: str) -> bytes:
        """Return the swap, signed by the maker. Raises ChainError if its price is below the minimum received."""
        sell, buy = authorization.sell, authorization.buy
        received = (authorization.sell_amount * self._price(sell) * 10**buy.decimals) // (
            self._price(buy) * 10**sell.decimals
        )
        if received < authorization.min_received:
            raise ChainError(f"the maker pays {received} base units, less than {authorization.min_received}")
        session = Pubkey.from_string(authorization.session_pubkey)
        message = MessageV0.try_compile(
            session,
            [
                _transfer(sell, session, self._maker.pubkey(), authorization.sell_amount),
                _transfer(buy, self._maker.pubkey(), session, received),
                memo(authorization.memo, session),
            ],
            [],
            Hash.from_string(blockhash),
        )
        signature = self._maker.sign_message(to_bytes_versioned(message))
        return bytes(VersionedTransaction.populate(message, [Signature.default(), signature]))

    def _price(self, asset: Asset) -> int:
        quotes = self._prices.quotes(asset.mint)
        if not quotes:
            raise ChainError(f"the maker has no price for {asset.symbol}")
        return quotes[0].price_pico_usd


def _transfer(asset: Asset, source: Pubkey, destination: Pubkey, amount: int) -> Instruction:
    mint, program = Pubkey.from_string(asset.mint), Pubkey.from_string(asset.token_program)
    return transfer_checked(
        get_associated_token_address(source, mint, program),
        mint,
        get_associated_token_address(destination, mint, program),
        owner=source,
        amount=amount,
        decimals=asset.decimals,
        token_program=program,
    )
