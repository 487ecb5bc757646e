"""What the demo happens in: a chain with two tokens, a market maker, prices, a user, and an executor, all made anew."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Self
from uuid import UUID

from solders.pubkey import Pubkey

from executor.assets import NATIVE_MINT, Asset, KnownAssets
from executor.errors import ExecutorError
from executor.execution import Executor
from executor.guard import AsyncGuard, Guard
from executor.limits import Limits
from executor.prices.quote import FixedPrices, Quote
from executor.rails.local import LocalRail
from executor.rails.local_chain import LocalChain
from executor.request import FireRequest
from executor.seal import SealKeys
from executor.signing import SessionVault, SigningGate
from executor.solana import TOKEN_PROGRAM
from executor.sweeper import Sweeper
from executor.treasury import Treasury
from permits import LocalSigner, SignedPermit, draft, issue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from executor.prices.quote import PriceSource

__all__ = [
    "FLOOR_LAMPORTS",
    "PERMIT_LIFETIME_S",
    "PRICES_USD",
    "QUOTE_AGE_S_MAX",
    "SOL",
    "START_USDC",
    "USDC_UNITS",
    "World",
]

SEEDED_START_MS: Final = 1_777_723_200_000
"""2026-05-02T12:00:00Z, as in the source's permit: with a seed, permits and their ids repeat themselves."""

QUOTE_AGE_S_MAX: Final = 30
PERMIT_LIFETIME_S: Final = 3_600
CAP_USD: Final = 250
JTO_USD: Final = Decimal("2.50")
PRICES_USD: Final = {"USDC": Decimal(1), "JTO": JTO_USD, "SOL": Decimal(150)}
USDC_UNITS: Final = 10**6
JTO_UNITS: Final = 10**9
LAMPORTS: Final = 10**9
START_USDC: Final = 1_000
START_LAMPORTS: Final = LAMPORTS // 100
FLOOR_LAMPORTS: Final = LAMPORTS // 20
"""What the operator tops the session wallet up to."""
SOL: Final = Asset(symbol="SOL", mint=NATIVE_MINT, decimals=9, token_program=str(TOKEN_PROGRAM))
CAPS: Final = Limits(autofund_lamports_per_24h=LAMPORTS // 10, autofund_lamports_per_24h_in_all=LAMPORTS)


class World:
    """Everything that the story needs: a chain with two tokens, a market maker, prices, a user, and an executor."""

    def __init__(self, folder: Path, seed: int | None, *, lasts_s: int = 0) -> None:
        """Make it all in `folder`, `lasts_s` ago: a story that lets that much pass leaves nothing from the future."""
        self.folder = folder
        self.random_bytes: Callable[[int], bytes] = (
            secrets.token_bytes if seed is None else random.Random(seed).randbytes  # noqa: S311 - a seed was asked for
        )
        self.now_ms = time.time_ns() // 1_000_000 - lasts_s * 1000 if seed is None else SEEDED_START_MS
        self._runs_since_ns: int | None = None
        seal_key, master_key = self._make_keys()
        self.chain = LocalChain(self.random_bytes)
        self.usdc = self._token("USDC", decimals=6)
        self.jto = self._token("JTO", decimals=9)
        self.prices = self._open_prices()
        self.quote_again()
        self.guard = Guard.open(
            folder / "ledger.db",
            seal_keys=SealKeys.single(seal_key),
            prices=self.prices,
            assets=KnownAssets([self.usdc, self.jto]),
            limits=CAPS,
            clock=self._read_clock,
            random_bytes=self.random_bytes,
        )
        self.vault = SessionVault(self.guard, master_key, random_bytes=self.random_bytes)
        self.maker = self.chain.new_keypair()
        self._give(self.maker.pubkey(), lamports=LAMPORTS, usdc=1_000_000, jto=1_000_000)
        self.rail = LocalRail(self.maker, self.prices)
        self.awaited = AsyncGuard(self.guard)
        gate = SigningGate(self.awaited, self.vault, self.chain)
        self.executor = Executor(self.awaited, gate, self.chain, [self.rail])
        self.sweeper = Sweeper(self.awaited, gate, self.chain)
        operator = self.chain.new_keypair()
        self.chain.give_lamports(operator.pubkey(), LAMPORTS)
        self.treasury = Treasury(
            self.awaited,
            self.chain,
            self.executor.settlement,
            operator,
            floor_lamports=FLOOR_LAMPORTS,
            new_id=self.new_id,
        )
        self.signer = LocalSigner.from_seed(self.random_bytes(32))
        self.wallet = self.signer.wallet_address
        self.begin_agent()
        self.guard.set_fundable(self.wallet, fundable=True)
        self._give(Pubkey.from_string(self.session_pubkey), lamports=START_LAMPORTS, usdc=START_USDC, jto=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        asyncio.run(self.awaited.close())

    def new_id(self) -> str:
        """Return a new UUID."""
        return str(UUID(bytes=self.random_bytes(16), version=4))

    def quote_again(self) -> None:
        """Publish every price anew."""
        for asset in (self.usdc, self.jto, SOL):
            usd, max_age_ms = PRICES_USD[asset.symbol], QUOTE_AGE_S_MAX * 1000
            self._fixed.set(Quote.of(asset.mint, usd, at_ms=self.now_ms, max_age_ms=max_age_ms, source="demo"))

    def let_pass(self, seconds: int, *, quotes: bool = True) -> None:
        """Move the clock on, with prices published along the way or not."""
        self.now_ms += seconds * 1000
        if quotes:
            self.quote_again()

    def run_clock(self) -> None:
        """Let time pass by itself from now on, as fast as anywhere."""
        self._runs_since_ns = time.monotonic_ns()

    def begin_agent(self) -> None:
        """Set a session key aside for a new agent: permits and requests are its from now on."""
        self.agent_id = self.new_id()
        self.session_pubkey = self.vault.make_session_key(self.wallet, self.agent_id)

    def sign_permit(self) -> SignedPermit:
        """Have the user's wallet sign a permit for the agent, as of now."""
        permit = draft(
            agent_id=self.agent_id,
            session_pubkey=self.session_pubkey,
            asset_whitelist=["USDC", "JTO"],
            max_amount_usd=CAP_USD,
            issued_at_ms=self.now_ms,
            lifetime_s=PERMIT_LIFETIME_S,
            nonce=self.random_bytes(16).hex(),
        )
        return issue(permit, self.signer)

    def request(self, usd: Decimal, *, buy: str = "JTO") -> FireRequest:
        """Ask to sell `usd` dollars of USDC, for at least 99 % of what the quotes promise."""
        return FireRequest(
            wallet=self.wallet,
            agent_id=self.agent_id,
            execution_id=self.new_id(),
            rail="local",
            sell="USDC",
            sell_amount=int(usd * USDC_UNITS),
            buy=buy,
            min_received=int(usd / JTO_USD * JTO_UNITS * 99 / 100),
        )

    def token_balances(self, owner: str) -> tuple[int, int]:
        """Return the base units of USDC and JTO that the VM says `owner` has."""
        key = Pubkey.from_string(owner)
        usdc, jto = (self.chain.token_balance(key, Pubkey.from_string(each.mint)) for each in (self.usdc, self.jto))
        return usdc, jto

    def balances(self, owner: str) -> dict[str, Decimal]:
        """Return what the VM says `owner` has, in whole tokens."""
        usdc, jto = self.token_balances(owner)
        lamports = self.chain.lamports(Pubkey.from_string(owner))
        return {
            "USDC": Decimal(usdc).scaleb(-self.usdc.decimals),
            "JTO": Decimal(jto).scaleb(-self.jto.decimals),
            "SOL": Decimal(lamports).scaleb(-9),
        }

    def _read_clock(self) -> int:
        ran_ns = 0 if self._runs_since_ns is None else time.monotonic_ns() - self._runs_since_ns
        return self.now_ms + ran_ns // 1_000_000

    def _open_prices(self) -> PriceSource:
        self._fixed = FixedPrices()
        return self._fixed

    def _make_keys(self) -> tuple[bytes, bytes]:
        """Make the two secrets that must not lie in the database, each in a file of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        names = ("seal.key", "master.key")
        if any((self.folder / name).exists() for name in ("ledger.db", *names)):  # keys alone: it was interrupted
            raise ExecutorError(f"`{self.folder}` holds a ledger or its keys already: name another folder with --dir")
        seal_key, master_key = (self.write_secret(name) for name in names)
        return bytes.fromhex(seal_key.read_text()), bytes.fromhex(master_key.read_text())

    def write_secret(self, name: str) -> Path:
        """Write a new secret, 64 hex digits, to a file that only its owner can read."""
        path = self.folder / name
        with open(path, "x", opener=_private) as file:
            file.write(self.random_bytes(32).hex())
        return path

    def _token(self, symbol: str, decimals: int) -> Asset:
        mint = str(self.chain.make_mint(decimals))
        return Asset(symbol=symbol, mint=mint, decimals=decimals, token_program=str(TOKEN_PROGRAM))

    def _give(self, owner: Pubkey, *, lamports: int, usdc: int, jto: int) -> None:
        self.chain.give_lamports(owner, lamports)
        self.chain.give_tokens(owner, Pubkey.from_string(self.usdc.mint), usdc * USDC_UNITS)
        self.chain.give_tokens(owner, Pubkey.from_string(self.jto.mint), jto * JTO_UNITS)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
