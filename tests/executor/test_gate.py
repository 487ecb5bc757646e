"""The gate from the proposal to the chain, with a program that nobody can decode: floors hold what it does."""

import asyncio

import pytest
from solders.account import Account as VmAccount
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.token.associated import get_associated_token_address as associated
from solders.transaction import VersionedTransaction

from executor.assets import NATIVE_MINT, KnownAssets
from executor.audit import check_ledger
from executor.demo.world import SOL, World
from executor.execution import BLOCKHASH_S_MAX, RAIL_S_MAX, Executor
from executor.lifecycle import AttemptState
from executor.limits import Limits
from executor.prices.quote import Quote
from executor.rails import Account
from executor.rails.agreed import AgreedChain
from executor.rails.passing import PAUSES_S
from executor.rails.rpc import RpcChain
from executor.reasons import Reason
from executor.signing import Policy, SigningGate
from executor.signing.gate import READING_S_MAX
from executor.solana import TOKEN_PROGRAM, create_associated_account, memo, transfer_checked
from permits import draft, issue
from tests import puppet
from tests.executor.test_execution import Proxy
from tests.localnet.front import Front

DECIMALS = {"USDC": 6, "JTO": 9, "SOL": 9, "BONK": 6}
SOLD, BOUGHT = 100 * 10**6, 99 * 10**6


class Stage:
    """A world with a program that does by CPI whatever its script says, and a rail that calls it."""

    name = "listed"
    cosigners = frozenset()

    def __init__(self, world, other=None):
        self.world = world
        bonk, other = world._token("BONK", decimals=6), other or world.jto
        world.guard._assets = KnownAssets([world.usdc, other, bonk])
        world.prices.set(Quote.of(bonk.mint, "1", at_ms=world.now_ms, max_age_ms=10**9, source="test"))
        self.session = Pubkey.from_string(world.session_pubkey)
        self.program, self.script = (world.chain.new_keypair().pubkey() for _ in range(2))
        world.chain._vm.add_program(self.program, puppet.program())
        self.taker = puppet.own_key(self.program)
        self.mints = {asset.symbol: Pubkey.from_string(asset.mint) for asset in (world.usdc, other, bonk)}
        world.chain.give_tokens(self.session, self.mints["BONK"], 0)
        world.chain.give_tokens(self.taker, self.mints["BONK"], 10**12)
        world.chain.give_tokens(self.taker, self.mints["USDC"], 0)
        if other is world.jto:
            world.chain.give_tokens(self.session, self.mints["JTO"], 1_000 * 10**9)
            world.chain.give_tokens(self.taker, self.mints["JTO"], 0)
        permit = draft(
            agent_id=world.agent_id,
            session_pubkey=world.session_pubkey,
            asset_whitelist=list(self.mints),
            max_amount_usd=250,
            issued_at_ms=world.now_ms,
            lifetime_s=3600,
            nonce="ab" * 16,
        )
        world.guard.activate(issue(permit, world.signer))
        self.tables, self.before, self.after = [], [], []

    def account(self, owner, symbol):
        return associated(owner, self.mints[symbol])

    def named(self):
        """Return every account that the program may touch, the script's first."""
        own = [self.account(owner, symbol) for owner in (self.session, self.taker) for symbol in self.mints]
        return [self.script, self.session, *self.mints.values(), *own, self.taker, TOKEN_PROGRAM]

    def move(self, symbol, source, destination, amount):
        return transfer_checked(
            self.account(source, symbol),
            self.mints[symbol],
            self.account(destination, symbol),
            source,
            amount,
            DECIMALS[symbol],
            TOKEN_PROGRAM,
        )

    def play(self, *instructions):
        """Let this be what the program does from now on."""
        script = puppet.script(self.program, list(instructions), self.named())
        self.world.chain._vm.set_account(self.script, VmAccount(10**10, script, self.program))

    def play_fair(self, sold=SOLD, bought=BOUGHT):
        self.play(
            self.move("USDC", self.session, self.taker, sold), self.move("BONK", self.taker, self.session, bought)
        )

    async def build(self, authorization, blockhash):
        read = {self.script, TOKEN_PROGRAM, self.taker, *self.mints.values()}
        metas = [
            AccountMeta(each, is_signer=each == self.session, is_writable=each not in read) for each in self.named()
        ]
        trade = [*self.before, Instruction(self.program, b"", metas), *self.after]
        calls = [*trade, memo(authorization.memo, self.session)]
        message = MessageV0.try_compile(self.session, calls, self.tables, Hash.from_string(blockhash))
        return bytes(VersionedTransaction.populate(message, [Signature.default()]))

    def fire(self, *, policy=None, chain=None, tables=None, **asked):
        world = self.world
        policy = policy or Policy(programs=frozenset({str(self.program)}))
        gate = SigningGate(world.awaited, world.vault, chain or world.chain, policy=policy, tables=tables)
        asked = {"rail": "listed", "buy": "BONK", "min_received": BOUGHT, **asked}
        request = world.request(100).model_copy(update=asked)
        return asyncio.run(Executor(world.awaited, gate, world.chain, [self, world.rail]).fire(request)).execution

    def held(self, symbol):
        return self.world.chain.token_balance(self.session, self.mints[symbol])


@pytest.fixture
def stage(tmp_path):
    with World(tmp_path, seed=17) as world:
        yield Stage(world)
        assert check_ledger(world.guard.ledger).findings == ()


def last(execution):
    return execution.steps[-1].entry.body


def test_a_listed_program_that_trades_fairly_lands_with_floors(stage):
    stage.play_fair()
    execution = stage.fire()
    assert execution.state is AttemptState.LANDED
    assert (stage.held("USDC"), stage.held("BONK")) == (900 * 10**6, BOUGHT)
    assert (last(execution)["fill"]["sold"], last(execution)["fill"]["received"]) == (str(SOLD), str(BOUGHT))
    assert execution.steps[1].entry.body["alone"] is True


def test_a_program_that_nobody_listed_is_not_signed_for(stage):
    stage.play_fair()
    execution = stage.fire(policy=Policy())
    assert (execution.state, last(execution)["reason"]) == (AttemptState.VOIDED, Reason.TRANSACTION_REFUSED)
    assert "isn't known or listed" in last(execution)["detail"]


@pytest.mark.parametrize(
    "act",
    [
        lambda stage: stage.play_fair(sold=SOLD + 1),
        lambda stage: stage.play_fair(bought=BOUGHT - 1),
        lambda stage: stage.play(
            stage.move("USDC", stage.session, stage.taker, SOLD),
            stage.move("BONK", stage.taker, stage.session, BOUGHT),
            stage.move("JTO", stage.session, stage.taker, 1),
        ),
    ],
    ids=["one unit more", "one unit less", "one unit of another"],
)
def test_what_the_simulation_shows_is_refused_and_costs_nothing(stage, act):
    act(stage)
    before = stage.world.chain.lamports(stage.session)
    execution = stage.fire()
    assert (execution.state, last(execution)["reason"]) == (AttemptState.VOIDED, Reason.TRANSACTION_REFUSED)
    assert "the chain would undo it" in last(execution)["detail"]
    assert (stage.held("USDC"), stage.held("JTO"), stage.world.chain.lamports(stage.session)) == (
        1_000 * 10**6,
        1_000 * 10**9,
        before,
    )


TRIES = 1 + len(PAUSES_S)


def fire_over_rpc(stage, front):
    """Fire by the gate, whose chain is behind `front`; the executor sends to it too."""

    async def run():
        async with front.serve() as url, RpcChain(url, pauses_s=[0] * (TRIES - 1)) as chain:
            policy = Policy(programs=frozenset({str(stage.program)}))
            gate = SigningGate(stage.world.awaited, stage.world.vault, chain, policy=policy)
            asked = {"rail": "listed", "buy": "BONK", "min_received": BOUGHT}
            request = stage.world.request(100).model_copy(update=asked)
            return (await Executor(stage.world.awaited, gate, chain, [stage]).fire(request)).execution

    return asyncio.run(run())


NODES = {
    "it has not seen the blockhash": ("lag", 1),
    "it says so itself": ("change", lambda result: {**result, "value": {"err": "BlockhashNotFound", "logs": None}}),
    "an account is in use": ("change", lambda result: {**result, "value": {"err": "AccountInUse", "logs": []}}),
    "it is behind": ("refuse", {"code": -32005, "message": "Node is behind by 2 slots"}),
    "it asks for fewer requests": ("refuse", {"code": -32429, "message": "rate limited"}),
    "too many requests": ("status", 429),
    "the server behind Cloudflare is out": ("status", 522),
    "the connection breaks": ("drop-request", None),
}


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr("executor.signing.gate.PAUSES_S", (0,) * (TRIES - 1))


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(("kind", "value"), NODES.values(), ids=NODES)
def test_a_node_that_can_not_try_it_now_is_asked_again_and_refuses_nothing(stage, kind, value):
    stage.play_fair()
    front = Front(stage.world.chain)
    front.fault("simulateTransaction", kind, value, times=TRIES - 1)
    assert fire_over_rpc(stage, front).state is AttemptState.LANDED
    front.fault("simulateTransaction", kind, value, times=TRIES**2)
    execution = fire_over_rpc(stage, front)
    assert (execution.state, last(execution)["reason"]) == (AttemptState.VOIDED, Reason.RAIL_UNAVAILABLE)
    assert front.asked.count("sendTransaction") == 1


REFUSALS = {
    "an instruction's own error": {"InstructionError": [0, {"Custom": 1}]},
    "too little for the fee": "InsufficientFundsForFee",
    "what nobody knows": "AnErrorOfNextYear",
}


@pytest.mark.parametrize("err", REFUSALS.values(), ids=REFUSALS)
def test_what_stays_is_a_refusal_at_once(stage, err):
    stage.play_fair()
    front = Front(stage.world.chain)
    front.fault("simulateTransaction", "change", lambda result: {**result, "value": {"err": err, "logs": []}})
    execution = fire_over_rpc(stage, front)
    assert (execution.state, last(execution)["reason"]) == (AttemptState.VOIDED, Reason.TRANSACTION_REFUSED)
    assert front.asked.count("simulateTransaction") == 1


@pytest.mark.parametrize("method", ["simulateTransaction", "getMultipleAccounts", "getLatestBlockhash"])
def test_a_chain_that_never_answers_is_not_waited_for_longer_than_an_authorization_lives(stage, monkeypatch, method):
    for limit in ("executor.signing.gate.READING_S_MAX", "executor.execution.BLOCKHASH_S_MAX"):
        monkeypatch.setattr(limit, 0.2)
    stage.play_fair()
    front = Front(stage.world.chain)
    front.fault(method, "hold-request", times=TRIES)
    execution = fire_over_rpc(stage, front)
    assert (execution.state, last(execution)["reason"]) == (AttemptState.VOIDED, Reason.RAIL_UNAVAILABLE)
    assert "within 0.2 s" in last(execution)["detail"]


def test_the_tries_and_the_rail_leave_an_authorization_time_to_be_signed():
    assert Limits().authorization_ttl_s > BLOCKHASH_S_MAX + RAIL_S_MAX + READING_S_MAX


def test_a_program_that_changes_its_mind_after_the_simulation_is_undone_by_the_chain(stage):
    stage.play_fair()

    async def simulate(transaction):
        result = await stage.world.chain.simulate(transaction)
        stage.play_fair(sold=2 * SOLD)
        return result

    execution = stage.fire(chain=Proxy(stage.world.chain, simulate=simulate))
    assert execution.state is AttemptState.FAILED
    assert (stage.held("USDC"), stage.held("BONK")) == (1_000 * 10**6, 0)


def test_what_another_trade_brings_meanwhile_is_not_the_programs_to_take(stage):
    """Another trade lands between the reading of the accounts and the signature."""
    stage.play_fair()
    world = stage.world
    other = world.request(100).model_copy(
        update={"sell": "JTO", "sell_amount": 40 * 10**9, "buy": "USDC", "min_received": 99 * 10**6}
    )

    async def simulate(transaction):
        result = await world.chain.simulate(transaction)
        assert (await world.executor.fire(other)).execution.state is AttemptState.LANDED
        world.chain.give_lamports(stage.session, 10_000)
        stage.play_fair(sold=2 * SOLD)
        return result

    execution = stage.fire(chain=Proxy(world.chain, simulate=simulate))
    assert (execution.state, last(execution)["reason"]) == (AttemptState.VOIDED, Reason.SESSION_BUSY)
    assert stage.held("USDC") == 1_100 * 10**6


@pytest.mark.parametrize("symbol", ["USDC", "JTO"], ids=["what is sold", "another token"])
def test_what_is_not_final_yet_has_a_floor(stage, symbol):
    """The newest state alone has the account, and the program takes from it without naming its mint."""
    owned, thief = stage.account(stage.session, symbol), stage.account(stage.taker, symbol)
    metas = [AccountMeta(each, is_signer=False, is_writable=True) for each in (owned, thief)]
    owner = AccountMeta(stage.session, is_signer=True, is_writable=False)
    take_all = Instruction(TOKEN_PROGRAM, b"\x03" + (1_000 * 10**6).to_bytes(8, "little"), [*metas, owner])
    named = [each for each in stage.named() if each != stage.mints[symbol]]
    stage.named = lambda: named
    stage.play(take_all, stage.move("BONK", stage.taker, stage.session, BOUGHT))

    async def accounts(addresses, *, finalized=False):
        found = await stage.world.chain.accounts(addresses)
        return [None if finalized and each == str(owned) else held for each, held in zip(addresses, found, strict=True)]

    execution = stage.fire(chain=Proxy(stage.world.chain, accounts=accounts))
    assert "the chain would undo it" in last(execution)["detail"]
    assert stage.held(symbol) == 1_000 * 10 ** DECIMALS[symbol]


def test_more_accounts_than_can_be_read_at_once_are_refused(stage):
    stage.play_fair()
    chain = stage.world.chain
    more = [chain.new_keypair().pubkey() for _ in range(110)]
    table = Pubkey.from_string(chain.make_table(map(str, more)))
    stage.tables = [AddressLookupTableAccount(table, more)]
    named = [*stage.named(), *more]
    stage.named = lambda: named
    execution = stage.fire(tables=AgreedChain(chain, chain))
    assert execution.state is AttemptState.VOIDED
    assert "accounts would have to be read for it, more than 100" in last(execution)["detail"]


def test_a_lookup_table_is_pinned_or_two_agree_on_it(stage):
    stage.play_fair()
    chain = stage.world.chain
    listed = [each for each in stage.named() if each not in (stage.session, TOKEN_PROGRAM)]
    address = chain.make_table(map(str, listed))
    stage.tables = [AddressLookupTableAccount(Pubkey.from_string(address), listed)]
    execution = stage.fire()
    assert "isn't pinned" in last(execution)["detail"]
    assert stage.fire(tables=AgreedChain(chain, chain)).state is AttemptState.LANDED
    programs = frozenset({str(stage.program)})
    pinned = Policy(programs=programs, tables={address: tuple(map(str, listed))})
    assert stage.fire(policy=pinned).state is AttemptState.LANDED
    swapped = Policy(programs=programs, tables={address: tuple(map(str, reversed(listed)))})
    assert stage.fire(policy=swapped).state is AttemptState.VOIDED
    assert stage.fire(policy=swapped, tables=AgreedChain(chain, chain)).state is AttemptState.VOIDED
    assert stage.held("USDC") == 800 * 10**6


def test_sol_that_lay_there_is_not_taken_for_what_was_bought(sol_stage):
    """The program pays nothing; what it should pay lies where the account of wrapped SOL is opened."""
    stage, chain = sol_stage, sol_stage.world.chain
    chain.give_lamports(stage.account(stage.session, "SOL"), 2_039_280 + SOL_BOUGHT)
    stage.before = [create_associated_account(stage.session, stage.session, stage.mints["SOL"])]
    stage.play(stage.move("USDC", stage.session, stage.taker, SOLD))
    execution = stage.fire(buy="SOL", min_received=SOL_BOUGHT)
    assert execution.state is AttemptState.VOIDED
    assert "the chain would undo it" in last(execution)["detail"]


SOL_SOLD, SOL_BOUGHT = 5 * 10**8, 66 * 10**7


@pytest.fixture
def sol_stage(tmp_path):
    """Beside USDC and BONK it trades SOL, which session wallets hold as it is, and the taker wrapped."""
    with World(tmp_path, seed=19) as world:
        native = Account(str(TOKEN_PROGRAM), 10**9, bytes(44) + b"\x09\x01" + bytes(36))
        world.chain.put(NATIVE_MINT, native)
        stage = Stage(world, SOL)
        wrapped = stage.account(stage.taker, "SOL")
        payer = world.chain._payer.pubkey()
        world.chain._execute(
            [create_associated_account(payer, stage.taker, stage.mints["SOL"]), *wrap(payer, wrapped, 10**10)]
        )
        yield stage
        assert check_ledger(world.guard.ledger).findings == ()


def wrap(source, account, lamports):
    return [
        transfer(TransferParams(from_pubkey=source, to_pubkey=account, lamports=lamports)),
        Instruction(TOKEN_PROGRAM, b"\x11", [AccountMeta(account, is_signer=False, is_writable=True)]),
    ]


def unwrap(stage):
    account = stage.account(stage.session, "SOL")
    metas = [AccountMeta(each, is_signer=each == stage.session, is_writable=True) for each in (account, stage.session)]
    return Instruction(TOKEN_PROGRAM, b"\x09", [*metas, metas[1]])


@pytest.mark.parametrize(("stolen", "state"), [(0, AttemptState.LANDED), (1, AttemptState.VOIDED)])
def test_sol_is_wrapped_for_a_listed_program_and_the_rest_unwrapped(sol_stage, stolen, state):
    stage, chain = sol_stage, sol_stage.world.chain
    own = stage.account(stage.session, "SOL")
    chain.give_lamports(stage.session, 10**9)
    opened = create_associated_account(stage.session, stage.session, stage.mints["SOL"])
    stage.before, stage.after = [opened, *wrap(stage.session, own, SOL_SOLD)], [unwrap(stage)]
    stage.play(
        stage.move("SOL", stage.session, stage.taker, SOL_SOLD - 1),
        stage.move("BONK", stage.taker, stage.session, 74 * 10**6 - stolen),
    )
    before = chain.lamports(stage.session)
    execution = stage.fire(sell="SOL", sell_amount=SOL_SOLD, min_received=74 * 10**6)
    assert execution.state is state
    if stolen:
        assert "the chain would undo it" in last(execution)["detail"]
    else:
        fill = last(execution)["fill"]
        assert (fill["sold"], fill["received"]) == (str(SOL_SOLD - 1), str(74 * 10**6))
        assert before - chain.lamports(stage.session) == SOL_SOLD - 1 + int(fill["feeLamports"])
        assert chain.lamports(own) == 0


@pytest.mark.parametrize(("stolen", "state"), [(0, AttemptState.LANDED), (1, AttemptState.VOIDED)])
def test_sol_that_a_listed_program_brings_is_unwrapped(sol_stage, stolen, state):
    stage, chain = sol_stage, sol_stage.world.chain
    stage.before = [create_associated_account(stage.session, stage.session, stage.mints["SOL"])]
    stage.after = [unwrap(stage)]
    stage.play(
        stage.move("USDC", stage.session, stage.taker, SOLD),
        stage.move("SOL", stage.taker, stage.session, SOL_BOUGHT - stolen),
    )
    before = chain.lamports(stage.session)
    execution = stage.fire(buy="SOL", min_received=SOL_BOUGHT)
    assert execution.state is state
    if stolen:
        assert "the chain would undo it" in last(execution)["detail"]
    else:
        fill = last(execution)["fill"]
        assert (fill["sold"], fill["received"]) == (str(SOLD), str(SOL_BOUGHT))
        assert chain.lamports(stage.session) - before == SOL_BOUGHT - int(fill["feeLamports"])
