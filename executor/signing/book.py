"""The book: what a transaction's instructions take from the session wallet and bring to it, one after the other.

What an instruction may take from the wallet by the session key's authority is refused or counted as it is entered; the
sums are held against the authorization and the policy at the end.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

from executor.assets import NATIVE_MINT
from executor.errors import TransactionRefused
from executor.signing.programs import (
    AccountClosing,
    AccountOpening,
    Budget,
    LamportTransfer,
    Memo,
    Opaque,
    Sync,
    TokenTransfer,
)
from executor.signing.tokens import TRANSFER_HOOK, is_free, read_mint, read_token_account
from executor.solana import RENT_SYSVAR, SYSTEM_PROGRAM, TOKEN_PROGRAM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from executor.assets import Asset
    from executor.authorization import Authorization
    from executor.rails import Account
    from executor.signing.policy import Policy
    from executor.signing.programs import Decoded
    from executor.signing.tokens import Mint

__all__ = ["Book", "Facts", "Trade"]

SYSTEM: Final = str(SYSTEM_PROGRAM)
RENT: Final = str(RENT_SYSVAR)
PER_BYTE: Final = Struct("<Qd")
"""How the Rent sysvar begins: lamports a byte and year, and the years after which an account is kept for ever."""

COMPUTE_UNITS_MAX: Final = 1_400_000
"""A transaction's most, and so what a price without a limit may apply to."""
UNITS_LIMIT: Final = 2
UNIT_PRICE: Final = 3
"""Kinds of compute budget settings that cost something; the price is in millionths of a lamport."""
MICRO: Final = 1_000_000

RENT_OVERHEAD_BYTES: Final = 128
"""For which an account costs rent on top of its own."""
RENT_LAMPORTS_PER_BYTE_MAX: Final = 10**6
"""It is 6,960. Beyond this, the answer is taken for nonsense."""

AUTHORITY_PROGRAMS: Final = frozenset(
    {
        "AddressLookupTab1e1111111111111111111111111",
        "BPFLoaderUpgradeab1e11111111111111111111111",
        "LoaderV411111111111111111111111111111111111",
        "Stake11111111111111111111111111111111111111",
        "Vote111111111111111111111111111111111111111",
    }
)
"""Owners of accounts over which a wallet may have power that no floor measures."""


class Facts(NamedTuple):
    """What the executor's own chain connection says, just now."""

    accounts: Mapping[str, Account | None]
    """Each address that `needs` named; None: there is nothing at it."""
    epoch: int
    """The current one: Token-2022 fees change with it."""

    def rent(self, data_bytes: int) -> int:
        """Return the lamports that an account of `data_bytes` costs, by the chain's own account that says so.

        Raises TransactionRefused if `needs` didn't name that account, or it says nothing credible.
        """
        account = self.accounts.get(RENT)
        if account is None or len(account.data) < PER_BYTE.size:
            raise TransactionRefused("what an account costs was not read")
        lamports, factor = PER_BYTE.unpack_from(account.data)
        if not 0 <= lamports * factor <= RENT_LAMPORTS_PER_BYTE_MAX:
            raise TransactionRefused(f"an account's byte can't cost {lamports} times {factor} lamports")
        return int((RENT_OVERHEAD_BYTES + data_bytes) * lamports * factor)


class Trade(NamedTuple):
    """The session wallet, and its accounts of the two tokens."""

    session: Pubkey
    selling: Pubkey
    buying: Pubkey
    wrapped: Pubkey | None
    """That of the two which holds wrapped SOL."""

    @classmethod
    def of(cls, authorization: Authorization) -> Trade:
        """Return the addresses of an authorized trade."""
        session = authorization.session_pubkey
        selling, buying = (
            _associated(session, asset.mint, asset.token_program) for asset in (authorization.sell, authorization.buy)
        )
        wrapped = selling if _is_sol(authorization.sell) else buying if _is_sol(authorization.buy) else None
        return cls(Pubkey.from_string(session), selling, buying, wrapped)


class Book:
    """Takes a transaction's instructions in their order, and keeps the sums that they are held against."""

    def __init__(self, authorization: Authorization, trade: Trade, facts: Facts, policy: Policy) -> None:
        self._authorization = authorization
        self._trade = trade
        self._facts = facts
        self._policy = policy
        self._sell_mint = self._mint(authorization.sell)
        self._buy_mint = self._mint(authorization.buy)
        self._memos: list[bytes] = []
        self._budget: dict[int, int] = {}
        self._opened: set[Pubkey] = set()
        self.rents: dict[Pubkey, int] = {}
        self.opaque: list[Opaque] = []
        self.left = 0
        self.received = 0
        self.wrapped_lamports = 0
        self.unwraps = False

    def take(self, instruction: Decoded) -> None:
        """Enter one instruction, or refuse it."""
        match instruction:
            case TokenTransfer():
                self._transfer(instruction)
            case Memo():
                self._memos.append(instruction.text)
            case Budget():
                self._set_budget(instruction)
            case LamportTransfer():
                self._move_lamports(instruction)
            case AccountOpening():
                self._open(instruction)
            case AccountClosing():
                self._close(instruction)
            case Sync():
                self._check_still_open(instruction.account)
            case Opaque():
                self._call(instruction)

    def check_opaque(self, signers: int, writable: frozenset[Pubkey]) -> None:
        """Refuse it if an opaque call could do what the floors, which are appended for it, don't hold.

        Floors void what others have signed, and they measure lamports and tokens alone.
        """
        if signers > 1:
            raise TransactionRefused("it has cosigners beside a program that can't be decoded")
        for call in self.opaque:
            for account in writable.intersection(call.accounts).difference(self._trade):
                held = self._read(account)
                if held is not None and (held.owner in AUTHORITY_PROGRAMS or _is_nonce(held)):
                    raise TransactionRefused(f"it hands {call.program} the account {account} of {held.owner}")

    def check_priority_fee(self) -> int:
        """Return the most lamports that inclusion costs beside the signatures."""
        units = min(self._budget.get(UNITS_LIMIT, COMPUTE_UNITS_MAX), COMPUTE_UNITS_MAX)
        lamports = -(-units * self._budget.get(UNIT_PRICE, 0) // MICRO)
        if lamports > self._policy.priority_fee_lamports_max:
            raise TransactionRefused(
                f"its priority fee is {lamports} lamports, more than {self._policy.priority_fee_lamports_max}"
            )
        return lamports

    def check_costs(self) -> None:
        """Hold what new accounts cost, and what is wrapped, against what they may."""
        rent_lamports = sum(self.rents.values())
        if rent_lamports > self._policy.rent_lamports_max:
            raise TransactionRefused(
                f"its new accounts cost {rent_lamports} lamports, more than {self._policy.rent_lamports_max}"
            )
        if self.wrapped_lamports > self._authorization.sell_amount:
            raise TransactionRefused(
                f"it wraps {self.wrapped_lamports} lamports, more than {self._authorization.sell_amount}"
            )

    def check_memo(self) -> None:
        """Refuse it unless it says, once, which entry of the ledger allowed it."""
        if not self._memos:
            raise TransactionRefused("it has no memo")
        if len(self._memos) > 1:
            raise TransactionRefused("it has more than one memo")
        if self._memos[0] != self._authorization.memo:
            raise TransactionRefused("its memo is not this authorization's")

    def check_accounts(self) -> None:
        """Refuse it unless the wallet and its two accounts are the session key's alone."""
        self._wallet()
        for asset, address in (
            (self._authorization.sell, self._trade.selling),
            (self._authorization.buy, self._trade.buying),
        ):
            self._check_account(asset, address)

    def check_amounts(self) -> None:
        """Hold what leaves and what comes against the authorization; beside opaque calls, floors do that."""
        if self.left > self._authorization.sell_amount:
            raise TransactionRefused(f"{self.left} base units would leave, more than {self._authorization.sell_amount}")
        if self.received < self._authorization.min_received and not self.opaque:
            raise TransactionRefused(
                f"{self.received} base units would come, less than {self._authorization.min_received}"
            )

    def _transfer(self, transfer: TokenTransfer) -> None:
        mint = self._known_mint(transfer)
        if transfer.others:
            self._check_hook(transfer, mint)
        if (
            transfer.fee is not None
            and mint is not None
            and transfer.fee != mint.fee(transfer.amount, self._facts.epoch)
        ):
            raise TransactionRefused(f"it takes the transfer fee to be {transfer.fee} base units, which it is not")
        if transfer.authority == self._trade.session:
            self._leave(transfer, mint)
            return
        if self._is_own(transfer.source):
            raise TransactionRefused("it takes from the session wallet's accounts by somebody else's authority")
        if transfer.destination in {self._trade.selling, self._trade.buying}:
            self._check_still_open(transfer.destination)
        if transfer.destination == self._trade.buying and mint is self._buy_mint:
            self.received += transfer.amount - mint.fee_max(transfer.amount, self._facts.epoch)

    def _leave(self, transfer: TokenTransfer, mint: Mint | None) -> None:
        """Enter a transfer by the session key's authority: of the sold token alone, from its associated account."""
        if transfer.source != self._trade.selling or mint is not self._sell_mint:
            raise TransactionRefused("it takes from the session wallet what is not for sale")
        if transfer.decimals not in {None, self._authorization.sell.decimals}:
            raise TransactionRefused(f"it takes {self._authorization.sell.symbol} to have {transfer.decimals} decimals")
        self._check_still_open(transfer.source)
        self.left += transfer.amount

    def _known_mint(self, transfer: TokenTransfer) -> Mint | None:
        """Return which of the two mints is transferred; None: neither."""
        mint = str(transfer.mint) if transfer.mint is not None else self._mint_of(transfer.source)
        if (mint, str(transfer.token_program)) == (
            self._authorization.sell.mint,
            self._authorization.sell.token_program,
        ):
            return self._sell_mint
        if (mint, str(transfer.token_program)) == (self._authorization.buy.mint, self._authorization.buy.token_program):
            return self._buy_mint
        return None

    def _mint_of(self, account: Pubkey) -> str:
        """Return the mint of an account from which an instruction takes without naming it."""
        if account == self._trade.selling:
            return self._authorization.sell.mint
        held = read_token_account(self._read(account))
        if held is None:
            raise TransactionRefused(f"it transfers from {account}, and what that holds isn't known")
        return str(Pubkey.from_bytes(held.mint))

    def _check_hook(self, transfer: TokenTransfer, mint: Mint | None) -> None:
        """Refuse accounts behind a transfer's own, unless they go to a hook that the operator accepted."""
        if mint is None or TRANSFER_HOOK not in mint.extensions:
            raise TransactionRefused("it hands a transfer more accounts than it takes")
        if set(transfer.others) & set(self._trade):
            raise TransactionRefused("it hands a transfer hook the session wallet's accounts")

    def _set_budget(self, setting: Budget) -> None:
        if setting.kind in self._budget:
            raise TransactionRefused("it sets the same compute budget twice")
        self._budget[setting.kind] = setting.value

    def _move_lamports(self, transfer: LamportTransfer) -> None:
        """Enter lamports of the session wallet that are wrapped to be sold. Others' are theirs."""
        if transfer.source != self._trade.session:
            return
        if transfer.destination != self._trade.wrapped or transfer.destination != self._trade.selling:
            raise TransactionRefused(f"it takes {transfer.lamports} lamports from the session wallet")
        self._check_still_open(transfer.destination)
        self.wrapped_lamports += transfer.lamports

    def _open(self, opening: AccountOpening) -> None:
        """Enter a new account; at the session wallet's expense only one of its own two."""
        self._check_still_open(opening.account)
        if opening.account in {self._trade.selling, self._trade.buying}:
            self._opened.add(opening.account)
        if opening.payer != self._trade.session:
            return
        for asset, account, mint in (
            (self._authorization.sell, self._trade.selling, self._sell_mint),
            (self._authorization.buy, self._trade.buying, self._buy_mint),
        ):
            genuine = (account, self._trade.session, asset.mint, asset.token_program)
            if (opening.account, opening.owner, str(opening.mint), str(opening.token_program)) == genuine:
                self.rents[account] = self._facts.rent(mint.account_bytes(asset.token_program))
                return
        raise TransactionRefused(f"it opens the account {opening.account} at the session wallet's expense")

    def _close(self, closing: AccountClosing) -> None:
        """Enter the unwrapping of SOL into the wallet. What strangers close of their own is theirs."""
        own = self._is_own(closing.account)
        if not own and closing.authority != self._trade.session:
            return
        if closing.account != self._trade.wrapped:
            raise TransactionRefused(f"it closes the session wallet's account {closing.account}")
        if closing.authority != self._trade.session or closing.destination != self._trade.session:
            raise TransactionRefused(f"it unwraps the session wallet's SOL to {closing.destination}")
        self._check_still_open(closing.account)
        self.rents.pop(closing.account, None)
        self.unwraps = True

    def _call(self, call: Opaque) -> None:
        """Enter a call that can't be decoded. After unwrapping it could open the account anew: no floor holds that."""
        if str(call.program) not in self._policy.programs:
            raise TransactionRefused(f"it calls the program {call.program}, which isn't known or listed")
        if self.unwraps:
            raise TransactionRefused(f"it calls {call.program}, which can't be decoded, after unwrapping SOL")
        self.opaque.append(call)

    def _check_still_open(self, account: Pubkey) -> None:
        """Refuse any use of the account of wrapped SOL after it was closed: what is sent there, nobody counts."""
        if self.unwraps and account == self._trade.wrapped:
            raise TransactionRefused("it uses the session wallet's account of wrapped SOL after closing it")

    def _wallet(self) -> Account:
        wallet = self._read(self._trade.session)
        if wallet is None or wallet.owner != SYSTEM or wallet.data:
            raise TransactionRefused("the session wallet is not a plain wallet with lamports")
        return wallet

    def _check_account(self, asset: Asset, address: Pubkey) -> None:
        account = self._read(address)
        if account is None or is_free(account):
            if address not in self._opened:
                raise TransactionRefused(f"the session wallet has no account of {asset.symbol}, and it opens none")
            return
        held = read_token_account(account)
        if held is None or account.owner != asset.token_program or str(Pubkey.from_bytes(held.mint)) != asset.mint:
            raise TransactionRefused(f"{address} is no account of {asset.symbol}")
        if held.owner != bytes(self._trade.session):
            raise TransactionRefused(f"the session wallet's account of {asset.symbol} was given to somebody else")
        if held.frozen:
            raise TransactionRefused(f"the session wallet's account of {asset.symbol} is frozen")
        if held.has_delegate:
            raise TransactionRefused(f"somebody else may take from the session wallet's account of {asset.symbol}")
        if held.close_authority not in {None, held.owner}:
            raise TransactionRefused(f"somebody else may close the session wallet's account of {asset.symbol}")

    def _is_own(self, account: Pubkey) -> bool:
        """Whether it is a token account of the session wallet, one of the two or any other."""
        if account in {self._trade.selling, self._trade.buying}:
            return True
        held = read_token_account(self._read(account))
        return held is not None and held.owner == bytes(self._trade.session)

    def _mint(self, asset: Asset) -> Mint:
        """Return the asset's mint, which must be what was sealed at activation."""
        account = self._read_text(asset.mint)
        mint = read_mint(asset.mint, account, listed=asset.mint in self._policy.mints)
        if account is None or account.owner != asset.token_program:
            raise TransactionRefused(f"{asset.symbol} is not of the token program that it had at activation")
        if mint.decimals != asset.decimals:
            raise TransactionRefused(f"{asset.symbol} has {mint.decimals} decimals, not {asset.decimals}")
        return mint

    def _read(self, address: Pubkey) -> Account | None:
        return self._read_text(str(address))

    def _read_text(self, address: str) -> Account | None:
        try:
            return self._facts.accounts[address]
        except KeyError:
            raise TransactionRefused(f"the account {address} was not read") from None


def _is_sol(asset: Asset) -> bool:
    return asset.mint == NATIVE_MINT and asset.token_program == str(TOKEN_PROGRAM)


@lru_cache(maxsize=4_096)
def _associated(owner: str, mint: str, token_program: str) -> Pubkey:
    """Return the associated account; remembered, since finding it takes longer than the rest of an inspection."""
    return get_associated_token_address(*map(Pubkey.from_string, (owner, mint, token_program)))


def _is_nonce(account: Account) -> bool:
    return account.owner == SYSTEM and bool(account.data)
