"""What tests share: a clock that stands still, a user, and a guard over a real SQLite file."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from decimal import Decimal
from functools import partial
from uuid import UUID

from executor.assets import NATIVE_MINT, Asset, KnownAssets
from executor.bounds import Bounds
from executor.guard import Guard
from executor.guard.prefetch import Prefetched
from executor.prices.quote import FixedPrices, Quote
from executor.request import FireRequest
from executor.seal import SealKeys
from permits import LocalSigner, SignedPermit, draft, issue

T0 = 1_777_723_200_000  # 2026-05-02T12:00:00Z
HOUR_MS = 3_600_000
TOKEN = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"

PERMIT = {
    "agentId": "6f1c9a52-0d1e-4b7a-9d4c-2f3f5b8a7e10",
    "sessionPubkey": "9hSR6S7WPtxmTojgo6GG3k4yDPecgJY292j7xrsUGWBu",
    "assetWhitelist": ["SOL", "USDC", "JTO"],
    "maxAmountPerExecutionUsd": 250,
    "expiresAt": "2026-08-01T00:00:00Z",
    "issuedAt": "2026-05-02T12:00:00Z",
    "nonce": "a1b2c3d4e5f60718293a4b5c6d7e8f90",
}

WALLET = LocalSigner.from_seed(bytes(range(32)))


def key(number: int) -> LocalSigner:
    """Return a key pair that is always the same for the same number."""
    return LocalSigner.from_seed(number.to_bytes(32, "big"))


def uuid(number: int) -> str:
    return str(UUID(int=number, version=4))


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def mint(number: int) -> str:
    return key(1_000_000 + number).wallet_address


USDC = Asset(symbol="USDC", mint=mint(1), decimals=6, token_program=TOKEN)
JTO = Asset(symbol="JTO", mint=mint(2), decimals=9, token_program=TOKEN)
BONK = Asset(symbol="BONK", mint=mint(3), decimals=5, token_program=TOKEN)


def until(holds, *, within_s=60):
    """Wait until `holds()` does."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def in_fork(work):
    """Return what `work` returns in a fork of this process, as text; it has 20 s."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # its default ends the child, and what it had to say is nothing
        try:
            said = work()
        except BaseException as error:  # noqa: BLE001 - the parent is told
            said = f"{type(error).__name__}: {error}"
        os.write(writing, str(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as heard:
        said = heard.read()
    os.waitpid(child, 0)
    return said


class Setup:
    """A user with a guard, a clock and prices: USDC at $1, JTO at $2.50."""

    def __init__(self, path, *, limits=None, signer=WALLET, seal_key=b"s" * 32):
        self.path = path
        self.now_ms = T0
        self.signer = signer
        self.wallet = signer.wallet_address
        self.seal_keys = SealKeys.single(seal_key)
        self.prices = FixedPrices()
        self.quote(USDC, "1")
        self.quote(JTO, "2.50")
        self.random = random.Random(7)
        self.limits = limits
        self.guard = self.open()

    def open(self) -> Guard:
        return Guard.open(
            self.path,
            seal_keys=self.seal_keys,
            prices=self.prices,
            assets=KnownAssets([USDC, JTO, BONK]),
            limits=self.limits,
            clock=lambda: self.now_ms,
            random_bytes=self.random.randbytes,
        )

    def reopen(self) -> None:
        self.guard.close()
        self.guard = self.open()

    def quote(self, asset, price_usd, *, at_ms=None, stale=False, max_age_ms=10**12):
        quoted = Quote.of(
            asset.mint,
            Decimal(price_usd),
            at_ms=self.now_ms if at_ms is None else at_ms,
            max_age_ms=max_age_ms,
            source="test",
        )
        self.prices.set(quoted.model_copy(update={"stale": stale}))

    def permit(
        self, agent=1, *, session=None, assets=("USDC", "JTO"), usd=250, lifetime_s=3600, nonce=None
    ) -> SignedPermit:
        drafted = draft(
            agent_id=uuid(agent),
            session_pubkey=key(session or agent).wallet_address,
            asset_whitelist=assets,
            max_amount_usd=usd,
            issued_at_ms=self.now_ms,
            lifetime_s=lifetime_s,
            nonce=nonce or self.random.randbytes(16).hex(),
        )
        return issue(drafted, self.signer)

    def activate(self, agent=1, **permit) -> Bounds:
        """Reserve the agent's key and activate a permit for it, which must work."""
        self.guard.reserve_session_key(self.wallet, uuid(agent), key(permit.get("session") or agent).wallet_address)
        bounds = self.guard.activate(self.permit(agent, **permit))
        assert isinstance(bounds, Bounds), bounds
        return bounds

    def sign(self, authorization, tx_signature="signature"):
        """Record a signature for `authorization`; return the refusal, if there is one."""
        return self.guard.mark_signed(
            authorization, tx_signature=tx_signature, transaction_bytes=b"signed", last_valid_block_height=100
        )

    def fetched(self):
        """Return what the price source says now, for work that a test hands to the ledger itself."""
        by_mint = {mint: self.prices.quotes(mint) for mint in (USDC.mint, JTO.mint, BONK.mint, NATIVE_MINT)}
        return Prefetched(by_mint, 0.0, is_last=True, monotonic_s=lambda: 0.0)

    def authorizing(self, execution=1):
        """Return the work that decides on a fire."""
        return partial(self.guard._authorizing(self.request(execution)), self.fetched())

    def request(self, execution=1, *, agent=1, **fields) -> FireRequest:
        """Sell 100 USDC for at least 39.6 JTO (a fair 40), unless `fields` say otherwise."""
        return FireRequest(
            **{
                "wallet": self.wallet,
                "agent_id": uuid(agent),
                "execution_id": uuid(10_000 + execution),
                "rail": "local",
                "sell": "USDC",
                "sell_amount": 100 * 10**6,
                "buy": "JTO",
                "min_received": 396 * 10**8,
                **fields,
            }
        )
