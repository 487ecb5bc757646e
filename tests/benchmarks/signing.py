"""Signing: the inspection of a swap, and a whole fire from its decision to its signature against the ledger's share."""

import asyncio
import statistics
import time
from decimal import Decimal

from solders.message import to_bytes_versioned
from solders.transaction import VersionedTransaction

from executor.demo.world import World
from executor.signing import SigningGate, inspect, read_proposal
from tests.benchmarks.ratios import ROUNDS, medians, paired, row
from tests.executor.signing.scene import Scene


def inspection(_folder):
    scene = Scene()
    transaction = scene.build(*scene.swap())
    facts, blockhash = scene.facts(transaction), scene.blockhash

    def ours():
        resolved = read_proposal(transaction).resolve({})
        inspect(resolved, scene.authorization, blockhash, scene.cosigners, facts, scene.policy)

    def theirs():
        parsed = VersionedTransaction.from_bytes(transaction)
        message = parsed.message
        parsed.signatures[1].verify(message.account_keys[1], to_bytes_versioned(message))

    pair = paired(ours, theirs)
    limit = (pair[0], INSPECTION_US_MAX, pair[0] / INSPECTION_US_MAX)
    return [
        row("inspect a swap", pair, "solders: read it, verify the cosigner", 2.5),
        row("inspect a swap", limit, "the limit", 1.0),
    ]


INSPECTION_US_MAX = 150


def from_decision_to_signature(folder):
    """Authorize and sign at the gate, against the two calls of the guard alone; the rail's building isn't counted."""

    async def fire(world, sign):
        """Return how long the authorizing and the signing took; the rail builds in between, on both sides."""
        start = time.perf_counter()
        authorization = (await world.awaited.authorize(world.request(Decimal(1)))).authorization
        took = time.perf_counter() - start
        blockhash = await world.chain.latest_blockhash()
        proposed = await world.rail.build(authorization.without_claim(), blockhash.hash)
        start = time.perf_counter()
        await sign(authorization, proposed, blockhash)
        took += time.perf_counter() - start
        world.guard.mark_dead(world.wallet, authorization.execution_id)
        return took

    async def measure(world):
        gate = SigningGate(world.awaited, world.vault, world.chain)

        async def at_the_gate(authorization, proposed, blockhash):
            await gate.sign(authorization, proposed, blockhash, world.rail.cosigners)

        async def by_the_guard_alone(authorization, proposed, blockhash):
            refused = await world.awaited.mark_signed(
                authorization,
                tx_signature=authorization.execution_id,
                transaction_bytes=proposed,
                last_valid_block_height=blockhash.last_valid_block_height,
            )
            assert refused is None

        return [
            [
                statistics.median([await fire(world, sign) for _ in range(FIRES)]) * 1e6
                for sign in (at_the_gate, by_the_guard_alone)
            ]
            for _ in range(ROUNDS)
        ]

    with World(folder / "signing", seed=1) as world:
        world.guard.activate(world.sign_permit())
        pairs = asyncio.run(measure(world))
    return [row("authorize, then sign at the gate", medians(pairs), "the guard's two calls alone", 1.3)]


FIRES = 16
"""Of all rounds together 480: a user may have 500 a day."""

MEASURED = (inspection, from_decision_to_signature)
