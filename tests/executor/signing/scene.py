"""A chain in a VM: what a session wallet, a market maker and a stranger own, and transactions for an authorized trade.

Accounts are written into the VM as bytes; the programs that run on them are the real ones.
"""

from typing import NamedTuple

from solders.account import Account as VmAccount
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message, MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata

from executor.assets import NATIVE_MINT, Asset
from executor.authorization import Authorization
from executor.rails import Account
from executor.signing import Facts, Policy, inspect, needs, read_proposal
from executor.solana import (
    ASSOCIATED_TOKEN_PROGRAM,
    COMPUTE_BUDGET_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
    create_associated_account,
    memo,
    transfer_checked,
)

SOL = 10**9
RENT = 2_039_280
TABLE_PROGRAM = Pubkey.from_string("AddressLookupTab1e1111111111111111111111111")
LISTED_PROGRAM = Pubkey.from_bytes(b"L" * 32)
FEE_BASIS_POINTS = 100


def keypair(name):
    return Keypair.from_seed(name.encode().ljust(32, b"."))


def address(name):
    return keypair(name).pubkey()


def asset(symbol, decimals, program=TOKEN_PROGRAM, mint=None):
    return Asset(symbol=symbol, mint=mint or str(address(symbol)), decimals=decimals, token_program=str(program))


USDC = asset("USDC", 6)
JTO = asset("JTO", 9)
OTHER = asset("OTHER", 5)
WSOL = asset("SOL", 9, mint=NATIVE_MINT)
FEE = asset("FEE", 6, TOKEN_2022_PROGRAM)
PLAIN = asset("PLAIN", 6, TOKEN_2022_PROGRAM)
ASSETS = (USDC, JTO, OTHER, WSOL, FEE, PLAIN)

SESSION, MAKER, STRANGER, FRIEND = map(keypair, ("session", "maker", "stranger", "friend"))
OWNERS = (SESSION, MAKER, STRANGER)


def ata(owner, token):
    key = owner if isinstance(owner, Pubkey) else owner.pubkey()
    return get_associated_token_address(key, mint_of(token), program_of(token))


def mint_of(token):
    return Pubkey.from_string(token.mint)


def program_of(token):
    return Pubkey.from_string(token.token_program)


def extension(kind, value):
    return kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value


def fee_config(older, newer, newer_epoch=0, units_max=2**63):
    fees = (
        epoch.to_bytes(8, "little") + units_max.to_bytes(8, "little") + points.to_bytes(2, "little")
        for epoch, points in ((0, older), (newer_epoch, newer))
    )
    return extension(1, bytes(72) + b"".join(fees))


def mint_bytes(decimals, extensions=b""):
    base = bytes(36) + (10**15).to_bytes(8, "little") + bytes([decimals, 1]) + bytes(36)
    return base + (bytes(83) + b"\1" + extensions if extensions else b"")


def token_account_bytes(token, owner, amount, *, delegate=None, state=1, closer=None, extensions=b""):
    def option(value):
        return bytes(4 + 32) if value is None else b"\1\0\0\0" + bytes(value)

    native = b"\1\0\0\0" + RENT.to_bytes(8, "little") if token == WSOL else bytes(12)
    delegated = amount if delegate is not None else 0
    return (
        bytes(mint_of(token))
        + bytes(owner)
        + amount.to_bytes(8, "little")
        + option(delegate)
        + bytes([state])
        + native
        + delegated.to_bytes(8, "little")
        + option(closer)
        + (b"\2" + extensions if extensions else b"")
    )


def table_bytes(addresses):
    meta = b"\1\0\0\0" + b"\xff" * 8 + bytes(8) + bytes(1) + b"\1" + bytes(32) + bytes(2)
    return meta + b"".join(map(bytes, addresses))


class Change(NamedTuple):
    """What a transaction did to the session wallet."""

    error: str | None
    before: dict
    after: dict


class Scene:
    """Sell 100 USDC for at least 40 JTO, unless it is opened for another trade."""

    def __init__(self, *, sell=USDC, sell_amount=100 * 10**6, buy=JTO, min_received=40 * 10**9, policy=None):
        self.vm = LiteSVM()
        self.vm.warp_to_slot(10)
        self.authorization = Authorization(
            wallet=str(address("wallet")),
            agent_id="agent",
            execution_id="execution",
            attempt=1,
            rail="test",
            session_pubkey=str(SESSION.pubkey()),
            sell=sell,
            sell_amount=sell_amount,
            buy=buy,
            min_received=min_received,
            entry_hash="ab" * 32,
            expires_at_ms=0,
            claim="",
        )
        self.policy = policy or Policy()
        self.tables = {}
        self.cosigners = frozenset({str(MAKER.pubkey())})
        for token in ASSETS:
            extensions = fee_config(FEE_BASIS_POINTS, FEE_BASIS_POINTS) if token == FEE else b""
            self.put(mint_of(token), program_of(token), mint_bytes(token.decimals, extensions))
            for owner in OWNERS:
                self.fund(owner.pubkey(), token, 10**12)
        for owner in (*OWNERS, FRIEND):
            self.put(owner.pubkey(), SYSTEM_PROGRAM, b"", lamports=50 * SOL)

    # --- what lies on the chain

    def put(self, key, program, data, lamports=None):
        lamports = self.vm.minimum_balance_for_rent_exemption(len(data)) if lamports is None else lamports
        self.vm.set_account(key, VmAccount(lamports, data, program))

    def fund(self, owner, token, amount, *, account=None, **how):
        """Write the associated account, or another one, of `owner`."""
        extensions = how.pop("extensions", extension(7, b"") + extension(2, bytes(8)) if token == FEE else b"")
        data = token_account_bytes(token, how.pop("held_by", owner), amount, extensions=extensions, **how)
        lamports = RENT + amount if token == WSOL else None
        self.put(account or ata(owner, token), program_of(token), data, lamports)

    def remove(self, key):
        self.vm.set_account(key, VmAccount(0, b"", SYSTEM_PROGRAM))

    def read(self, key):
        found = self.vm.get_account(Pubkey.from_string(key))
        if found is None or (found.lamports, len(found.data)) == (0, 0):
            return None
        return Account(str(found.owner), found.lamports, bytes(found.data))

    def make_table(self, addresses, name="table"):
        key = address(name)
        self.put(key, TABLE_PROGRAM, table_bytes(addresses))
        self.tables[str(key)] = tuple(map(str, addresses))
        return key

    # --- instructions

    def move(self, token, source, destination, amount, *, authority=None, **how):
        """Transfer between associated accounts, or between what `how` names."""
        return transfer_checked(
            how.get("account", ata(source, token)),
            how.get("mint", mint_of(token)),
            how.get("into", ata(destination, token)),
            owner=(authority or source).pubkey(),
            amount=amount,
            decimals=how.get("decimals", token.decimals),
            token_program=how.get("program", program_of(token)),
        )

    def sell(self, amount=None, **how):
        amount = self.authorization.sell_amount if amount is None else amount
        return self.move(self.authorization.sell, SESSION, MAKER, amount, **how)

    def pay(self, amount=None, **how):
        amount = self.authorization.min_received if amount is None else amount
        return self.move(self.authorization.buy, MAKER, SESSION, amount, **how)

    def memo(self, text=None):
        return memo(self.authorization.memo if text is None else text, SESSION.pubkey())

    def swap(self):
        return [self.sell(), self.pay(), self.memo()]

    # --- transactions

    @property
    def blockhash(self):
        return str(self.vm.latest_blockhash())

    def build(self, *instructions, **how):
        return bytes(self.compile(*instructions, **how))

    def compile(self, *instructions, payer=SESSION, legacy=False, tables=(), blockhash=None, forge=()):
        """Compile and sign for all but the session key and those in `forge`."""
        blockhash = Hash.from_string(blockhash or self.blockhash)
        if legacy:
            message = Message.new_with_blockhash(list(instructions), payer.pubkey(), blockhash)
        else:
            message = MessageV0.try_compile(payer.pubkey(), list(instructions), list(tables), blockhash)
        return self.cosign(message, forge)

    def cosign(self, message, forge=()):
        by_key = {each.pubkey(): each for each in (MAKER, STRANGER, FRIEND) if each not in forge}
        signed = to_bytes_versioned(message)
        signers = message.account_keys[: message.header.num_required_signatures]
        return VersionedTransaction.populate(
            message, [by_key[each].sign_message(signed) if each in by_key else Signature.default() for each in signers]
        )

    def facts(self, transaction, epoch=0):
        needed = needs(read_proposal(transaction).resolve(self.tables), self.authorization)
        return Facts({each: self.read(each) for each in needed}, epoch)

    def inspect(self, transaction, *, epoch=0):
        return self.inspect_with(transaction, self.facts(transaction, epoch))

    def inspect_with(self, transaction, facts):
        resolved = read_proposal(transaction).resolve(self.tables)
        return inspect(resolved, self.authorization, self.blockhash, self.cosigners, facts, self.policy)

    def complete(self, transaction):
        """Sign with the session key, as the gate would."""
        parsed = VersionedTransaction.from_bytes(transaction)
        signature = SESSION.sign_message(to_bytes_versioned(parsed.message))
        return VersionedTransaction.populate(parsed.message, [signature, *parsed.signatures[1:]])

    def run(self, transaction):
        """Execute without keeping what it changes; return the session wallet's side of it."""
        completed = self.complete(transaction)
        result = self.vm.simulate_transaction(completed)
        if isinstance(result, FailedTransactionMetadata):
            return Change(str(result.err()), {}, {})
        before = self.everything()
        return Change(None, before, before | dict(result.post_accounts()))

    def everything(self):
        """Return all accounts that matter, by key."""
        keys = [owner.pubkey() for owner in (*OWNERS, FRIEND)]
        found = {key: self.vm.get_account(key) for key in keys}
        for program in (TOKEN_PROGRAM, TOKEN_2022_PROGRAM):
            found |= dict(self.vm.get_program_accounts(program))
        return found


def budget(kind, value):
    size = 8 if kind == 3 else 4
    return Instruction(COMPUTE_BUDGET_PROGRAM, bytes([kind]) + value.to_bytes(size, "little"), [])


def give(source, destination, lamports):
    return transfer(
        TransferParams(
            from_pubkey=source.pubkey(),
            to_pubkey=getattr(destination, "pubkey", lambda: destination)(),
            lamports=lamports,
        )
    )


def call(program, data, *accounts):
    """Call `program`; accounts are writable, and sign if they are key pairs."""
    metas = [
        AccountMeta(each.pubkey(), is_signer=True, is_writable=True)
        if isinstance(each, Keypair)
        else AccountMeta(each, is_signer=False, is_writable=True)
        for each in accounts
    ]
    return Instruction(program, data, metas)


def token_call(token, data, *accounts):
    return call(program_of(token), data, *accounts)


def sync(account):
    return call(TOKEN_PROGRAM, b"\x11", account)


def close(account, destination, authority, program=TOKEN_PROGRAM):
    return call(program, b"\x09", account, destination, authority)


def plain_transfer(token, source, destination, authority, amount):
    return token_call(token, b"\x03" + amount.to_bytes(8, "little"), source, destination, authority)


def transfer_with_fee(token, source, destination, authority, amount, fee):
    data = b"\x1a\x01" + amount.to_bytes(8, "little") + bytes([token.decimals]) + fee.to_bytes(8, "little")
    return token_call(token, data, source, mint_of(token), destination, authority)


def open_account(payer, owner, token, kind=b"\1"):
    made = create_associated_account(payer.pubkey(), owner.pubkey(), mint_of(token), program_of(token))
    return Instruction(ASSOCIATED_TOKEN_PROGRAM, kind, made.accounts)


def with_data(instruction, data):
    return Instruction(instruction.program_id, data, instruction.accounts)


def with_accounts(instruction, *accounts):
    return Instruction(instruction.program_id, bytes(instruction.data), list(accounts))
