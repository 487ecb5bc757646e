"""The sweeper: everything finds its way home, to the unit, to nobody else; then the key is gone."""

import asyncio
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction

from executor.assets import NATIVE_MINT
from executor.audit import check_ledger
from executor.demo.world import START_LAMPORTS, World
from executor.errors import ChainError, IllegalTransition, TransactionRefused, VaultError
from executor.halts import EVERYTHING, Halter
from executor.lifecycle import AgentState
from executor.rails import Account, Holding
from executor.reasons import Reason
from executor.signing import SigningGate
from executor.signing.sweep import ACCOUNTS_MAX, FEE_LAMPORTS, Owned, pays_home, sweep_message
from executor.solana import (
    ASSOCIATED_TOKEN_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
)
from executor.sweeper import Sweeper
from executor.trace import trace
from permits import LocalSigner
from tests.executor.signing import scene
from tests.executor.test_execution import Proxy

RENT = scene.RENT
STEPS_MAX = 10
FEE_MINT = scene.FEE


@pytest.fixture
def world(tmp_path):
    with World(tmp_path, seed=13) as made:
        made.guard.activate(made.sign_permit())
        made.chain.put(
            FEE_MINT.mint, Account(str(TOKEN_2022_PROGRAM), 10**7, scene.mint_bytes(6, scene.fee_config(100, 100)))
        )
        yield made
        assert check_ledger(made.guard.ledger).findings == ()


def sweep(world, *, agent_id=None):
    """Do step after step until it is done, or waits; return the last."""

    async def run():
        for _ in range(STEPS_MAX):
            step = await world.sweeper.step(world.wallet, agent_id or world.agent_id)
            if step.done or step.waits_for:
                return step
        return step

    return asyncio.run(run())


def session(world):
    return Pubkey.from_string(world.session_pubkey)


def home(world):
    return Pubkey.from_string(world.wallet)


def give(world, token, amount, *, withheld=0, state=1):
    """Put an account of the token with so much in it into the session wallet."""
    extensions = b""
    if token == FEE_MINT:
        extensions = scene.extension(7, b"") + scene.extension(2, withheld.to_bytes(8, "little"))
    data = scene.token_account_bytes(token, session(world), amount, state=state, extensions=extensions)
    where = get_associated_token_address(
        session(world), Pubkey.from_string(token.mint), Pubkey.from_string(token.token_program)
    )
    native = amount if token.mint == NATIVE_MINT else 0
    world.chain.put(str(where), Account(token.token_program, 10**7 + native, data))


def balance(world, token):
    where = get_associated_token_address(
        home(world), Pubkey.from_string(token.mint), Pubkey.from_string(token.token_program)
    )
    (account,) = asyncio.run(world.chain.accounts([str(where)]))
    return 0 if account is None else int.from_bytes(account.data[64:72], "little")


def test_after_a_stop_all_goes_home_and_the_key_is_destroyed(world):
    asyncio.run(world.executor.fire(world.request(100)))
    world.guard.stop(world.wallet, world.agent_id)
    assert sweep(world).done
    assert world.token_balances(world.session_pubkey) == (0, 0)
    assert world.chain.lamports(session(world)) == 0
    assert world.token_balances(world.wallet) == (900 * 10**6, 40 * 10**9)
    assert world.guard.agent(world.wallet, world.agent_id).state is AgentState.COMPLETED
    with pytest.raises(VaultError, match="destroyed"):
        world.vault.make_session_key(world.wallet, world.agent_id)
    assert sweep(world).done  # again it changes nothing
    (signed, *_) = (each.entry for each in world.guard.entries(world.wallet) if each.entry.kind == "sweep-signed")
    assert trace(world.guard.ledger, signed.body["txSignature"]).findings == ()


def test_it_works_while_everything_is_halted_and_after_a_completion(world):
    world.guard.complete(world.wallet, world.agent_id, "target reached")
    world.guard.halt(EVERYTHING, Halter.OPERATOR, "a drill")
    assert sweep(world).done
    assert world.token_balances(world.wallet) == (1_000 * 10**6, 0)


def test_fees_withheld_wrapped_sol_and_many_accounts_go_home_too(world):
    give(world, FEE_MINT, 1_000_000, withheld=777)
    give(world, scene.WSOL, 3 * 10**9)
    for token in (scene.USDC, scene.JTO, scene.OTHER):
        world.chain.put(token.mint, Account(str(TOKEN_PROGRAM), 10**7, scene.mint_bytes(token.decimals)))
        give(world, token, 5)
    before = world.chain.lamports(session(world))
    world.guard.stop(world.wallet, world.agent_id)
    assert sweep(world).done
    assert balance(world, FEE_MINT) == 990_000
    assert [balance(world, token) for token in (scene.USDC, scene.JTO, scene.OTHER)] == [5, 5, 5]
    assert world.chain.lamports(session(world)) == 0
    assert world.chain.lamports(home(world)) > before + 3 * 10**9


def test_a_frozen_account_keeps_the_key(world):
    world.chain.put(scene.OTHER.mint, Account(str(TOKEN_PROGRAM), 10**7, scene.mint_bytes(5)))
    give(world, scene.OTHER, 5, state=2)
    world.guard.stop(world.wallet, world.agent_id)
    stuck = sweep(world)
    assert (stuck.done, stuck.waits_for) == (False, "token accounts that their mint's authority has frozen")
    assert world.token_balances(world.wallet) == (1_000 * 10**6, 0)


def test_what_can_not_be_moved_keeps_nothing_else(world):
    """A stranger sends a token that refuses to move: its mint is none that the program knows."""
    give(world, scene.OTHER, 5)
    world.chain.put(scene.OTHER.mint, Account(str(TOKEN_PROGRAM), 10**7, bytes(82)))
    world.guard.stop(world.wallet, world.agent_id)
    stuck = sweep(world)
    assert not stuck.done
    assert world.token_balances(world.wallet) == (1_000 * 10**6, 0)
    assert world.chain.lamports(session(world)) == 0
    assert "key-destroyed" not in [each.entry.kind for each in world.guard.entries(world.wallet)]


def test_many_accounts_are_swept_in_turn(world):
    """More than a chain is asked for at once."""
    for number in range(60):
        token = scene.asset(f"T{number}", 0)
        world.chain.put(token.mint, Account(str(TOKEN_PROGRAM), 10**7, scene.mint_bytes(0)))
        give(world, token, 0)
    world.guard.stop(world.wallet, world.agent_id)
    for _ in range(4):
        step = sweep(world)
    assert step.done


def test_a_holding_of_another_program_is_none():
    held = Holding(str(Keypair().pubkey()), str(Keypair().pubkey()), str(Keypair().pubkey()), 1, 1, frozen=False)
    with pytest.raises(TransactionRefused, match="nothing of the program"):
        sweep_message(str(WALLET), str(SESSION), Owned(10**9, [held], {held.mint: None}), secrets_hash())


def test_without_a_fee_nothing_moves_and_the_key_stays(world):
    world.chain.put(world.session_pubkey, Account(str(SYSTEM_PROGRAM), 4_999, b""))
    world.guard.stop(world.wallet, world.agent_id)
    stuck = sweep(world)
    assert not stuck.done
    assert "less than the fee" in stuck.waits_for
    with world.guard.ledger.view(world.wallet) as view:
        assert len(world.vault.sign(view, world.agent_id, world.session_pubkey, b"")) == 64


def test_what_the_chain_would_undo_is_not_signed_again_and_again(world):
    """So little opens no account: the user's wallet isn't on the chain yet."""
    world.guard.stop(world.wallet, world.agent_id)
    usdc = get_associated_token_address(session(world), Pubkey.from_string(world.usdc.mint))
    for address in (usdc, get_associated_token_address(session(world), Pubkey.from_string(world.jto.mint))):
        world.chain.put(str(address), Account(str(SYSTEM_PROGRAM), 0, b""))
    world.chain.put(world.session_pubkey, Account(str(SYSTEM_PROGRAM), FEE_LAMPORTS + 1_000, b""))
    for _ in range(3):
        assert "would undo" in sweep(world).waits_for
    assert "sweep-signed" not in [each.entry.kind for each in world.guard.entries(world.wallet)]
    world.chain.give_lamports(home(world), 10**9)
    assert sweep(world).done


def test_an_agent_that_may_fire_is_not_swept(world):
    with pytest.raises(IllegalTransition, match="not stopped or completed"):
        sweep(world)
    with pytest.raises(IllegalTransition, match="not stopped or completed"):
        sweep(world, agent_id=world.new_id())
    owned, blockhash = Owned(START_LAMPORTS, (), {}), asyncio.run(world.chain.latest_blockhash())
    gate = SigningGate(world.awaited, world.vault, world.chain)
    with pytest.raises(IllegalTransition, match="only what was stopped"):
        asyncio.run(gate.sign_sweep(world.wallet, world.agent_id, owned, blockhash))
    assert "sweep-signed" not in [each.entry.kind for each in world.guard.entries(world.wallet)]


def test_another_wallet_sweeps_nobody(world):
    world.guard.stop(world.wallet, world.agent_id)
    thief = LocalSigner.generate().wallet_address
    gate = SigningGate(world.awaited, world.vault, world.chain)
    owned, blockhash = Owned(START_LAMPORTS, (), {}), asyncio.run(world.chain.latest_blockhash())
    for _ in range(2):
        with pytest.raises(IllegalTransition, match="there is no agent"):
            asyncio.run(gate.sign_sweep(thief, world.agent_id, owned, blockhash))
        world.guard.reserve_session_key(LocalSigner.generate().wallet_address, world.new_id(), world.session_pubkey)


def test_the_key_stays_while_an_attempt_is_open(world):
    authorization = world.guard.authorize(world.request(10)).authorization
    world.guard.stop(world.wallet, world.agent_id)
    assert "have not ended" in sweep(world).waits_for
    world.guard.void(world.wallet, authorization.execution_id, Reason.RAIL_UNAVAILABLE, "stopped")
    assert sweep(world).done


def test_a_chain_that_answers_nothing_is_asked_again(world):
    world.guard.stop(world.wallet, world.agent_id)

    async def refuses(*_arguments, **_named):
        raise ChainError("no connection")

    gate = SigningGate(world.awaited, world.vault, world.chain)
    mute = Sweeper(world.awaited, gate, Proxy(world.chain, send=refuses))
    assert not asyncio.run(mute.step(world.wallet, world.agent_id)).done
    assert world.token_balances(world.session_pubkey)[0] == 1_000 * 10**6
    deaf = Sweeper(world.awaited, gate, Proxy(world.chain, holdings=refuses))
    with pytest.raises(ChainError):
        asyncio.run(deaf.step(world.wallet, world.agent_id))
    assert sweep(world).done


WALLET, SESSION = Keypair().pubkey(), Keypair().pubkey()
addresses = st.sampled_from([str(Keypair().pubkey()) for _ in range(6)] + [str(WALLET), str(SESSION), NATIVE_MINT])
holdings = st.lists(
    st.builds(
        Holding,
        address=addresses,
        token_program=st.sampled_from([str(TOKEN_PROGRAM), str(TOKEN_2022_PROGRAM)]),
        mint=addresses,
        amount=st.integers(0, 2**64 - 1),
        lamports=st.integers(0, 2**63),
        frozen=st.booleans(),
    ),
    max_size=7,
)
accounts = st.builds(
    lambda decimals, fee: Account(str(TOKEN_2022_PROGRAM), 1, bytes(44) + bytes([decimals]) + bytes(121) + fee),
    st.integers(0, 19),
    st.sampled_from([b"", scene.extension(2, bytes(8))]),
)


@settings(max_examples=300)
@given(lamports=st.integers(0, 2**63), held=holdings, account=accounts)
def test_whatever_the_chain_is_said_to_hold_a_sweep_pays_the_wallet_alone(lamports, held, account):
    lies = {each: account for holding in held for each in (holding.address, holding.mint)}
    try:
        message = sweep_message(str(WALLET), str(SESSION), Owned(lamports, held, lies), str(Hash.default()))
    except TransactionRefused:
        return
    keys = message.account_keys
    assert (keys[0], message.header.num_required_signatures) == (SESSION, 1)
    for each in message.instructions:
        program, data = keys[each.program_id_index], bytes(each.data)
        named = [keys[index] for index in each.accounts]
        if program == SYSTEM_PROGRAM:
            assert (data[:4], named) == (b"\2\0\0\0", [SESSION, WALLET])
        elif program == ASSOCIATED_TOKEN_PROGRAM:
            assert named[2] == WALLET
        elif data[0] == 12:
            assert named[2] == get_associated_token_address(WALLET, named[1], program)
        elif data[0] == 9:
            assert named[1] == SESSION
        else:
            assert data == bytes([26, 4])
    assert pays_home(message, str(WALLET))
    moved = {bytes(each.data)[0] for each in message.instructions} - {9, 26}  # what is empty is only closed
    assert pays_home(message, str(Keypair().pubkey())) == (not moved)
    assert sum(keys[each.program_id_index] == ASSOCIATED_TOKEN_PROGRAM for each in message.instructions) <= ACCOUNTS_MAX


def test_the_longest_sweep_fits_a_packet():
    program = str(TOKEN_2022_PROGRAM)
    held = [
        Holding(str(Keypair().pubkey()), program, str(Keypair().pubkey()), 2**64 - 1, 10**7, frozen=False)
        for _ in range(2 * ACCOUNTS_MAX)
    ]
    account = Account(program, 1, bytes(165) + b"\2" + scene.extension(2, bytes(8)))
    lies = {each: account for holding in held for each in (holding.address, holding.mint)}
    message = sweep_message(str(WALLET), str(SESSION), Owned(10**9, held, lies), secrets_hash())
    assert len(bytes(VersionedTransaction.populate(message, [Signature.default()]))) <= 1_232


def secrets_hash():
    return str(Hash(secrets.token_bytes(32)))


@pytest.mark.parametrize("lamports", [0, FEE_LAMPORTS - 1, FEE_LAMPORTS])
def test_nothing_but_a_fee_is_nothing_to_sweep(lamports):
    with pytest.raises(TransactionRefused):
        sweep_message(str(WALLET), str(SESSION), Owned(lamports, (), {}), secrets_hash())
