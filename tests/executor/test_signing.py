"""The signing gate against transactions that are not what was authorized, and the VM against forged ones."""

import ast
import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import AdvanceNonceAccountParams, TransferParams, advance_nonce_account, transfer
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction

import executor
from executor.audit import check_ledger
from executor.bounds import Bounds
from executor.decide import Refused
from executor.demo.world import World
from executor.errors import ChainError, IllegalTransition, TransactionRefused, VaultError
from executor.evidence import replay
from executor.lifecycle import AttemptState
from executor.signing import Facts, Policy, SessionVault, SignedTransaction, SigningGate, inspect, needs, read_proposal
from executor.solana import MEMO_PROGRAM, TOKEN_PROGRAM, create_associated_account, memo, transfer_checked
from tests.support import key, uuid


def signed_by(vault, world, agent_id, session_pubkey):
    with world.guard.ledger.view(world.wallet) as view:
        return vault.sign(view, agent_id, session_pubkey, b"")


@pytest.fixture
def world(tmp_path):
    with World(tmp_path, seed=3) as made:
        made.guard.activate(made.sign_permit())
        yield made


class Case:
    """An authorized sale of 100 USDC, and the parts of a transaction for it."""

    def __init__(self, world):
        self.world = world
        self.authorization = world.guard.authorize(world.request(100)).authorization
        self.session = Pubkey.from_string(self.authorization.session_pubkey)
        self.maker = world.maker
        self.blockhash = asyncio.run(world.chain.latest_blockhash())
        self.gate = SigningGate(world.awaited, world.vault, world.chain)
        self.stranger = world.chain.new_keypair()

    def move(self, asset, source, destination, amount, *, owner=None, mint=None, program=TOKEN_PROGRAM, decimals=None):
        token = Pubkey.from_string(asset.mint)
        return transfer_checked(
            get_associated_token_address(source, token),
            mint or token,
            get_associated_token_address(destination, token),
            owner=owner or source,
            amount=amount,
            decimals=asset.decimals if decimals is None else decimals,
            token_program=program,
        )

    def sell(self, amount=100 * 10**6, **how):
        return self.move(self.world.usdc, self.session, self.maker.pubkey(), amount, **how)

    def pay(self, amount=40 * 10**9, **how):
        return self.move(self.world.jto, self.maker.pubkey(), self.session, amount, **how)

    def memo(self, text=None):
        return memo(text or self.authorization.memo, self.session)

    def build(self, *instructions, payer=None, signers=None, blockhash=None, more=()):
        """Compile and sign for all but the session key; `more` sign besides, for a transfer of nothing each."""
        nothing = (self.move(self.world.jto, each.pubkey(), self.maker.pubkey(), 0) for each in more)
        instructions = (*instructions, *nothing)
        message = MessageV0.try_compile(
            payer or self.session, list(instructions), [], Hash.from_string(blockhash or self.blockhash.hash)
        )
        required = message.account_keys[: message.header.num_required_signatures]
        by_key = {each.pubkey(): each for each in (signers or [self.maker, self.stranger])}
        signed = to_bytes_versioned(message)
        signatures = [by_key[each].sign_message(signed) if each in by_key else Signature.default() for each in required]
        return bytes(VersionedTransaction.populate(message, signatures))

    def sign(self, transaction):
        return asyncio.run(self.gate.sign(self.authorization, transaction, self.blockhash, self.world.rail.cosigners))

    def inspect(self, transaction):
        resolved = read_proposal(transaction).resolve({})
        addresses = sorted(needs(resolved, self.authorization))
        found = asyncio.run(self.world.chain.accounts(addresses))
        facts = Facts(dict(zip(addresses, found, strict=True)), epoch=0)
        cosigners = self.world.rail.cosigners
        return inspect(resolved, self.authorization, self.blockhash.hash, cosigners, facts, Policy())

    def state(self):
        return self.world.guard.execution(self.world.wallet, self.authorization.execution_id).state


@pytest.fixture
def case(world):
    return Case(world)


def test_the_authorized_trade_is_signed_and_lands(case):
    signed = case.sign(case.build(case.sell(), case.pay(), case.memo()))
    assert isinstance(signed, SignedTransaction)
    assert case.state() is AttemptState.SIGNED
    case.world.chain.execute(signed.content)
    record = asyncio.run(case.world.chain.record(signed.tx_signature, 0))
    assert record.error is None
    assert case.world.token_balances(str(case.session)) == (900 * 10**6, 40 * 10**9)


def test_what_is_signed_is_what_was_inspected_whatever_the_rails_object_says_of_itself(case):
    honest = case.build(case.sell(), case.pay(), case.memo())
    greedy = case.build(case.sell(200 * 10**6), case.pay(), case.memo())

    class Turncoat(bytes):
        def __getitem__(self, index):
            return greedy[index]

        def __bytes__(self):
            return greedy

    signed = case.sign(Turncoat(honest))
    assert VersionedTransaction.from_bytes(signed.content).message == VersionedTransaction.from_bytes(honest).message


def test_a_signature_that_the_guard_no_longer_wants_never_leaves(case):
    proposed = case.build(case.sell(), case.pay(), case.memo())
    case.world.let_pass(seconds=60)
    refused = case.sign(proposed)
    assert isinstance(refused, Refused)
    assert refused.reason == "AUTHORIZATION_EXPIRED"
    assert case.state() is AttemptState.VOIDED


def test_a_price_that_moved_before_signing_is_kept_as_evidence(case):
    case.world.prices.set(case.world.prices.quotes(case.world.jto.mint)[0].model_copy(update={"stale": True}))
    assert case.sign(case.build(case.sell(), case.pay(), case.memo())).reason == "PRICE_STALE"
    voided = case.world.guard.execution(case.world.wallet, case.authorization.execution_id).steps[-1].entry
    activated = case.world.guard.entries(case.world.wallet)[voided.body["evidence"]["activation"] - 1].entry
    assert replay(voided, activated).reason == "PRICE_STALE"
    assert check_ledger(case.world.guard.ledger).findings == ()


def test_a_listed_program_beside_a_cosigner_is_refused(case):
    listed = case.stranger.pubkey()
    policy = Policy(programs=frozenset({str(listed)}))
    case.gate = SigningGate(case.world.awaited, case.world.vault, case.world.chain, policy=policy)
    metas = [AccountMeta(case.session, is_signer=True, is_writable=True)]
    with pytest.raises(TransactionRefused, match="sign"):
        case.sign(case.build(case.sell(), case.pay(), Instruction(listed, b"", metas), case.memo()))
    assert case.state() is AttemptState.VOIDED


def test_less_out_and_more_in_is_fine(case):
    assert case.sign(case.build(case.memo(), case.pay(50 * 10**9), case.sell(1), case.sell(2)))


ATTACKS = {
    "one unit more leaves": lambda case: case.build(case.sell(100 * 10**6 + 1), case.pay(), case.memo()),
    "a second transfer out": lambda case: case.build(case.sell(), case.sell(1), case.pay(), case.memo()),
    "one unit less comes": lambda case: case.build(
        case.sell(), case.pay(case.authorization.min_received - 1), case.memo()
    ),
    "nothing comes": lambda case: case.build(case.sell(), case.memo()),
    "it comes to somebody else": lambda case: case.build(
        case.sell(), case.move(case.world.jto, case.maker.pubkey(), case.stranger.pubkey(), 40 * 10**9), case.memo()
    ),
    "it comes from the session wallet itself": lambda case: case.build(
        case.sell(), case.move(case.world.jto, case.session, case.session, 40 * 10**9), case.memo()
    ),
    "a delegate moves the session wallet's own tokens into it": lambda case: case.build(
        case.sell(),
        case.move(case.world.jto, case.session, case.session, 40 * 10**9, owner=case.maker.pubkey()),
        case.memo(),
    ),
    "the bought token leaves": lambda case: case.build(
        case.sell(), case.pay(), case.move(case.world.jto, case.session, case.maker.pubkey(), 1), case.memo()
    ),
    "the wrong mint": lambda case: case.build(
        case.sell(mint=Pubkey.from_string(case.world.jto.mint)), case.pay(), case.memo()
    ),
    "another token program": lambda case: case.build(case.sell(program=MEMO_PROGRAM), case.pay(), case.memo()),
    "lamports leave": lambda case: case.build(
        case.sell(),
        case.pay(),
        case.memo(),
        transfer(TransferParams(from_pubkey=case.session, to_pubkey=case.stranger.pubkey(), lamports=1)),
    ),
    "a durable nonce": lambda case: case.build(
        advance_nonce_account(
            AdvanceNonceAccountParams(nonce_pubkey=case.stranger.pubkey(), authorized_pubkey=case.session)
        ),
        case.sell(),
        case.pay(),
        case.memo(),
    ),
    "an account is opened at the session wallet's expense": lambda case: case.build(
        create_associated_account(case.session, case.maker.pubkey(), Pubkey.from_string(case.world.jto.mint)),
        case.sell(),
        case.pay(),
        case.memo(),
    ),
    "an approval": lambda case: case.build(
        case.sell(), case.pay(), case.memo(), _with_data(case.sell(), b"\x04" + (1).to_bytes(8, "little"))
    ),
    "an unchecked transfer": lambda case: case.build(
        case.sell(), case.pay(), case.memo(), _with_data(case.sell(), b"\x03" + (1).to_bytes(8, "little"))
    ),
    "a transfer with a trailing byte": lambda case: case.build(
        _with_data(case.sell(), bytes(case.sell().data) + b"\0"), case.pay(), case.memo()
    ),
    "no memo": lambda case: case.build(case.sell(), case.pay()),
    "the memo twice": lambda case: case.build(case.sell(), case.pay(), case.memo(), case.memo()),
    "another execution's memo": lambda case: case.build(case.sell(), case.pay(), case.memo(b"holdfire:" + b"0" * 64)),
    "another fee payer": lambda case: case.build(case.sell(), case.pay(), case.memo(), payer=case.stranger.pubkey()),
    "a co-signer who hasn't signed": lambda case: case.build(
        case.sell(), case.pay(), case.memo(), signers=[case.stranger]
    ),
    "another blockhash": lambda case: case.build(
        case.sell(), case.pay(), case.memo(), blockhash=str(Hash.new_unique())
    ),
    "accounts from a lookup table": lambda case: bytes(
        VersionedTransaction.populate(
            MessageV0.try_compile(
                case.session,
                [case.sell(), case.pay(), case.memo()],
                [AddressLookupTableAccount(Pubkey.new_unique(), [Pubkey.from_string(case.world.usdc.mint)])],
                Hash.from_string(case.blockhash.hash),
            ),
            [Signature.default()] * 2,
        )
    ),
    "five signers": lambda case: case.build(
        case.sell(),
        case.pay(),
        case.memo(),
        signers=[case.maker, *(others := [case.world.chain.new_keypair() for _ in range(3)])],
        more=others,
    ),
    "a multisig's extra account": lambda case: case.build(
        _with_accounts(case.sell(), [*case.sell().accounts, case.sell().accounts[0]]), case.pay(), case.memo()
    ),
    "a packet too long": lambda case: case.build(case.sell(), case.pay(), *[case.memo()] * 12),
    "a trailing byte": lambda case: case.build(case.sell(), case.pay(), case.memo()) + b"\0",
    "half of it": lambda case: case.build(case.sell(), case.pay(), case.memo())[:100],
    "nothing": lambda _: b"",
    "a megabyte": lambda _: bytes(2**20),
}


def _with_data(instruction, data):
    return type(instruction)(instruction.program_id, data, instruction.accounts)


def _with_accounts(instruction, accounts):
    return type(instruction)(instruction.program_id, bytes(instruction.data), accounts)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_anything_else_is_not_signed(case, attack):
    with pytest.raises(TransactionRefused):
        case.sign(attack(case))
    assert case.state() is AttemptState.VOIDED
    voided = case.world.guard.execution(case.world.wallet, case.authorization.execution_id).steps[-1]
    assert voided.entry.body["reason"] == "TRANSACTION_REFUSED"
    assert voided.entry.body["detail"]


FORGERIES = {
    "more may leave": {"sell_amount": 10**12},
    "less may come": {"min_received": 1},
    "another session key": {"session_pubkey": key(5).wallet_address},
    "another agent": {"agent_id": uuid(5)},
    "a later end": {"expires_at_ms": 2**60},
    "another memo": {"entry_hash": "00" * 32},
    "another claim": {"claim": "00" * 16},
    "no claim": {"claim": ""},
}


@pytest.mark.parametrize("changes", FORGERIES.values(), ids=FORGERIES)
def test_an_authorization_that_was_changed_is_none(case, changes):
    genuine = case.authorization
    case.authorization = genuine._replace(**changes)
    with pytest.raises(IllegalTransition):
        case.sign(case.build(case.sell(), case.pay(), case.memo()))
    assert case.state() is AttemptState.AUTHORIZED
    assert not any(sealed.entry.kind == "signed" for sealed in case.world.guard.entries(case.world.wallet))
    with pytest.raises(IllegalTransition):
        case.world.guard.mark_signed(
            case.authorization, tx_signature="5" * 87, transaction_bytes=b"", last_valid_block_height=1
        )
    case.authorization = genuine
    assert case.sign(case.build(case.sell(), case.pay(), case.memo()))


def test_another_agents_row_in_the_vault_opens_for_nobody(world):
    """Somebody with the database, and an agent of their own, copies a victim's encrypted key into their row."""
    thief, agent_id = key(66), world.new_id()
    world.guard.reserve_session_key(thief.wallet_address, agent_id, world.session_pubkey)
    with world.guard.ledger.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO session_secrets SELECT ?, ?, box FROM session_secrets",
            (thief.wallet_address, agent_id),
        )
    world.wallet, world.agent_id, world.signer = thief.wallet_address, agent_id, thief
    assert isinstance(world.guard.activate(world.sign_permit()), Bounds)
    with pytest.raises(VaultError, match="doesn't open"):
        asyncio.run(world.executor.fire(world.request(100)))
    assert world.token_balances(world.session_pubkey) == (1_000 * 10**6, 0)


def test_every_flipped_bit_of_the_proposal_is_refused_or_harmless(case):
    good = case.build(case.sell(), case.pay(), case.memo())
    case.inspect(good)
    for bit in range(8 * len(good)):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        if 8 <= bit < 8 * 65:
            continue  # the empty place of the session key's own signature
        with pytest.raises(TransactionRefused):
            case.inspect(bytes(changed))


def test_the_vm_refuses_a_signature_with_one_byte_changed(case):
    signed = case.sign(case.build(case.sell(), case.pay(), case.memo()))
    forged = bytearray(signed.content)
    forged[1 + 10] ^= 1
    with pytest.raises(ChainError, match="SignatureFailure"):
        case.world.chain.execute(bytes(forged))
    assert case.world.token_balances(str(case.session)) == (1_000 * 10**6, 0)
    case.world.chain.execute(signed.content)
    assert case.world.token_balances(str(case.session)) == (900 * 10**6, 40 * 10**9)


def test_the_vault_gives_out_a_signature_only_for_the_reserved_key(case):
    vault, authorization = case.world.vault, case.authorization
    with pytest.raises(VaultError, match="not the one"):
        signed_by(vault, case.world, authorization.agent_id, str(case.stranger.pubkey()))
    with pytest.raises(VaultError, match="no session key"):
        signed_by(vault, case.world, case.world.new_id(), authorization.session_pubkey)
    other = SessionVault(case.world.guard, b"x" * 32)
    with pytest.raises(VaultError, match="master key"):
        signed_by(other, case.world, authorization.agent_id, authorization.session_pubkey)


def test_a_key_that_somebody_planted_is_not_handed_out(world):
    agent_id = world.new_id()
    with world.guard.ledger.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO session_secrets SELECT wallet, ?, box FROM session_secrets", (agent_id,)
        )
    with pytest.raises(VaultError, match="doesn't open"):
        world.vault.make_session_key(world.wallet, agent_id)
    assert world.guard.agent(world.wallet, agent_id) is None


def test_threads_that_make_a_key_at_once_get_the_same(world):
    agent_id = world.new_id()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: world.vault.make_session_key(world.wallet, agent_id), range(8)))
    assert len(set(made)) == 1


def test_an_agent_keeps_its_session_key(world):
    first = world.vault.make_session_key(world.wallet, world.agent_id)
    assert world.vault.make_session_key(world.wallet, world.agent_id) == first


def test_a_key_is_used_at_one_place_only():
    """The vault signs, and only the gate asks it to; nobody else constructs or calls a signing key."""
    calls = []
    for path in Path(executor.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in {"sign", "sign_message"}:
                calls.append((path.name, ast.unparse(node)))
            if isinstance(node, ast.Name) and node.id in {"SigningKey", "crypto_sign", "crypto_sign_seed_keypair"}:
                calls.append((path.name, node.id))
    assert sorted(calls) == [
        ("checkpoint.py", "auditor.sign"),  # the auditor's own key, over a tagged digest
        ("execution.py", "self._gate.sign"),
        ("gate.py", "self._vault.sign"),
        ("local.py", "self._maker.sign_message"),  # the market maker's own key
        ("vault.py", "crypto_sign"),
        ("vault.py", "crypto_sign_seed_keypair"),
    ]
