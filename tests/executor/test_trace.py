"""From a transaction back to its permit, and what doesn't fit on the way."""

import asyncio
from decimal import Decimal

import pytest
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from executor.cli import main
from executor.demo.world import World
from executor.trace import trace


@pytest.fixture
def world(tmp_path):
    with World(tmp_path, seed=7) as made:
        made.guard.activate(made.sign_permit())
        yield made


def fire(world, request):
    return asyncio.run(world.executor.fire(request))


def signature_of(outcome):
    return outcome.execution.steps[1].entry.body["txSignature"]


def test_a_landed_transaction_leads_back_to_its_permit(world):
    tx_signature = signature_of(fire(world, world.request(Decimal(200))))
    found = trace(world.guard.ledger, tx_signature)
    assert found.findings == ()
    assert (found.wallet, found.execution.state) == (world.wallet, "landed")
    assert found.execution.bounds.permit_id == world.guard.agent(world.wallet, world.agent_id).bounds.permit_id


def test_a_transaction_of_somebody_else_is_nobodys(world):
    assert trace(world.guard.ledger, str(Keypair().sign_message(b"other"))) is None


def test_a_signature_over_something_else_is_told(world):
    tx_signature = signature_of(fire(world, world.request(Decimal(200))))
    decision = world.guard.authorize(world.request(Decimal(10)))
    content = bytearray.fromhex(trace(world.guard.ledger, tx_signature).signed.entry.body["transaction"])
    content[40] ^= 1
    world.guard.mark_signed(
        decision.authorization,
        tx_signature=tx_signature[::-1],
        transaction_bytes=bytes(content),
        last_valid_block_height=1,
    )
    findings = trace(world.guard.ledger, tx_signature[::-1]).findings
    assert [finding.split()[0] for finding in findings] == ["the", "the", "its"]


def test_the_command_shows_each_step(world, tmp_path, capsys):
    tx_signature = signature_of(fire(world, world.request(Decimal(200))))
    world.guard.close()
    where = ["--db", str(tmp_path / "ledger.db"), "--seal-key", str(tmp_path / "seal.key")]
    assert main(["trace", tx_signature, *where]) == 0
    out = capsys.readouterr().out
    for word in ("transaction", "wallet", "execution", "attempt", "quote", "decision", "activation", "permit"):
        assert f"\n{word}" in f"\n{out}"
    assert "WRONG" not in out
    attempt = "at most 200 USDC (200000000 base units) for at least 79.2 JTO (79200000000 base units)\n"
    assert f"\nattempt     1: {attempt}" in out
    assert "\nquote       JTO at $2.50, demo, " in out
    assert ", worth $200.00, entry " in out
    assert "\nlimit       autofund_lamports_per_24h 0.1 SOL (100000000 lamports)\n" in out
    assert main(["trace", "1" * 64, *where]) == 1
    assert "knows nothing" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["trace", "abc", *where])
    assert "`abc` is not base58 of 64 bytes" in capsys.readouterr().err


def test_a_sweep_that_pays_somebody_else_is_told(world):
    """No code of ours makes one; what a ledger's writer with both keys recorded as one is seen for what it is."""
    world.guard.stop(world.wallet, world.agent_id)
    session, thief = Keypair(), Keypair().pubkey()
    paying = transfer(TransferParams(from_pubkey=session.pubkey(), to_pubkey=thief, lamports=1))
    stolen = VersionedTransaction(MessageV0.try_compile(session.pubkey(), [paying], [], Hash.default()), [session])
    tx_signature = str(stolen.signatures[0])
    world.guard.record_sweep(
        world.wallet, world.agent_id, lambda _: (tx_signature, bytes(stolen)), last_valid_block_height=1
    )
    assert trace(world.guard.ledger, tx_signature).findings == ("it pays somebody else than the wallet",)
