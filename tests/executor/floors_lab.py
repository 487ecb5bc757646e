"""A session wallet in the real VM, and a program that does whatever it likes with the session key's signature."""

import random
from typing import NamedTuple

from solders.account import Account as VmAccount
from solders.address_lookup_table_account import ID as TABLE_PROGRAM
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import (
    CreateAccountParams,
    TransferParams,
    create_account,
    transfer,
)
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata

from executor.assets import NATIVE_MINT, Asset
from executor.authorization import Authorization
from executor.rails import Account
from executor.signing.floors import (
    floor_instructions,
    lamport_floor,
    mints_of,
    named_accounts,
    token_floors,
    with_floors,
)
from executor.signing.inspection import Inspected
from executor.solana import (
    ASSOCIATED_TOKEN_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
    create_associated_account,
    mint_to,
    transfer_checked,
)
from tests import puppet

SIGNATURE_LAMPORTS = 5_000
SPENDABLE_LAMPORTS = 3_000_000
"""What the wallet may spend besides the fee: enough for a new account."""

OWNER, CLOSER = 2, 3
"""The authorities over an account, as SetAuthority counts them."""

REVOKE, CLOSE, KEEP, SYNC = 0, 1, 2, 3
"""The floor instructions of one account, in their order."""


class Kind(NamedTuple):
    """What the tokens are: whose program, what their mints' extensions say, and which of them is wrapped SOL."""

    token_program: Pubkey
    extension: bytes = b""
    mint_bytes: int = 82
    account_bytes: int = 165
    wrapped: int | None = None


FEE = bytes([26, 0, 0, 0]) + (500).to_bytes(2, "little") + (10**9).to_bytes(8, "little")
KINDS = {
    "the token program": Kind(TOKEN_PROGRAM),
    "wrapped SOL is sold": Kind(TOKEN_PROGRAM, wrapped=0),
    "wrapped SOL is bought": Kind(TOKEN_PROGRAM, wrapped=1),
    "Token-2022": Kind(TOKEN_2022_PROGRAM),
    "Token-2022 with a fee of 5 percent": Kind(TOKEN_2022_PROGRAM, FEE, 165 + 1 + 4 + 108, 178),
}


class Holding(NamedTuple):
    """A token account, read on its own here."""

    mint: Pubkey
    owner: Pubkey
    units: int
    delegate: bytes | None
    closer: bytes | None


class Lab:
    """A session wallet with some tokens, and the puppet, which is called in its name.

    The wallet sells 100 of its 1,000 units of one token for 40 of another, of which it has 10. It has 500 of a third,
    in an account whose address the puppet can use again, none of a fourth in an account that is open, and no account
    for the fifth.
    """

    def __init__(self, kind, spendable=SPENDABLE_LAMPORTS):
        self.kind, self.program, self.spendable = kind, kind.token_program, spendable
        self.vm = LiteSVM()
        self.random = random.Random(5)
        self.puppet = self.key().pubkey()
        self.vm.add_program(self.puppet, puppet.program())
        self.taker = puppet.own_key(self.puppet)
        self.script = self.key().pubkey()
        self.maker, self.keypair, self.thief = self.key(), self.key(), self.key().pubkey()
        self.session = self.keypair.pubkey()
        for each in (self.maker.pubkey(), self.session, self.taker):
            self.vm.airdrop(each, 10**10)
        self.mints = [self.make_mint(decimals) for decimals in (6, 9, 5, 0, 2)]
        if kind.wrapped is not None:
            native = self.mints[kind.wrapped] = Pubkey.from_string(NATIVE_MINT)
            self.vm.set_account(native, VmAccount(10**9, bytes(44) + b"\x09\x01" + bytes(36), TOKEN_PROGRAM))
        self.sold, self.bought, self.third, self.fourth, self.fifth = self.mints
        self.seeded = Pubkey.create_with_seed(self.taker, "third", self.program)
        self.fill(self.session, self.sold, 1_000)
        self.fill(self.session, self.bought, 10)
        self.fill(self.session, self.fourth, 0)
        self.make_third(500)
        for mint in self.mints:
            self.fill(self.taker, mint, 10_000)
        self.named = [
            self.script,
            self.session,
            *self.mints[:4],
            *(self.at(self.session, mint) for mint in (self.sold, self.bought, self.fourth)),
            self.seeded,
            *(self.at(self.taker, mint) for mint in self.mints[:4]),
            self.taker,
            self.thief,
            self.program,
            SYSTEM_PROGRAM,
            ASSOCIATED_TOKEN_PROGRAM,
        ]
        self.lamport_floor = self.vm.get_balance(self.session) - SIGNATURE_LAMPORTS - spendable
        self.wrapped, self.unwrapped, self.rents = 0, None, {}

    # Setting up

    def key(self):
        return Keypair.from_seed(self.random.randbytes(32))

    def at(self, owner, mint):
        return get_associated_token_address(owner, mint, self.program)

    def native(self):
        """Return the wallet's account of wrapped SOL."""
        return self.at(self.session, Pubkey.from_string(NATIVE_MINT))

    def do(self, *instructions, signers=()):
        signers = [self.maker, *signers]
        message = MessageV0.try_compile(self.maker.pubkey(), list(instructions), [], self.vm.latest_blockhash())
        result = self.vm.send_transaction(VersionedTransaction(message, signers))
        self.vm.expire_blockhash()
        assert not isinstance(result, FailedTransactionMetadata), result

    def new_account(self, size):
        made = self.key()
        rent = self.vm.minimum_balance_for_rent_exemption(size)
        return made, create_account(
            CreateAccountParams(
                from_pubkey=self.maker.pubkey(), to_pubkey=made.pubkey(), lamports=rent, space=size, owner=self.program
            )
        )

    def make_mint(self, decimals, extension=None):
        extension, size = (self.kind.extension, self.kind.mint_bytes) if extension is None else extension
        made, create = self.new_account(size)
        extended = [self.token(extension, made.pubkey())] if extension else []
        initialized = self.token(bytes([20, decimals]) + bytes(self.maker.pubkey()) + b"\0", made.pubkey())
        self.do(create, *extended, initialized, signers=[made])
        return made.pubkey()

    def fill(self, owner, mint, units):
        account = self.at(owner, mint)
        self.do(create_associated_account(self.maker.pubkey(), owner, mint, self.program))
        if mint == Pubkey.from_string(NATIVE_MINT):
            self.do(
                transfer(TransferParams(from_pubkey=self.maker.pubkey(), to_pubkey=account, lamports=units)),
                self.token(b"\x11", account),
            )
        else:
            self.do(self.mint_to(mint, account, units))

    def mint_to(self, mint, account, units):
        made = mint_to(mint, account, self.maker.pubkey(), units)
        return Instruction(self.program, bytes(made.data), made.accounts)

    def make_third(self, units):
        made, create = self.new_account(self.kind.account_bytes)
        self.do(
            create,
            self.token(b"\x12" + bytes(self.session), made.pubkey(), self.third),
            self.mint_to(self.third, made.pubkey(), units),
            signers=[made],
        )
        self.vm.set_account(self.seeded, self.vm.get_account(made.pubkey()))

    # What the puppet may be told to do

    def token(self, data, *accounts, signer=None):
        metas = [AccountMeta(each, is_signer=False, is_writable=True) for each in accounts]
        signers = [AccountMeta(signer, is_signer=True, is_writable=False)] if signer else []
        return Instruction(self.program, data, metas + signers)

    def move(self, mint, source, destination, units, signer=None):
        decimals = self.vm.get_account(mint).data[44]
        return transfer_checked(source, mint, destination, signer or self.session, units, decimals, self.program)

    def give(self, mint, units, source=None):
        """Move `units` from the wallet to the taker."""
        return self.move(mint, source or self.at(self.session, mint), self.at(self.taker, mint), units)

    def get(self, mint, units, destination=None):
        """Move `units` from the taker to the wallet, which gets that much even if there is a fee."""
        gross = -(-units * 100 // 95) if self.kind.extension else units
        return self.move(
            mint, self.at(self.taker, mint), destination or self.at(self.session, mint), gross, signer=self.taker
        )

    def swap(self):
        return [self.give(self.sold, 100), self.get(self.bought, 40)]

    def pay(self, destination, lamports):
        return transfer(TransferParams(from_pubkey=self.session, to_pubkey=destination, lamports=lamports))

    def approve(self, account, delegate, signer=None):
        return self.token(b"\x04" + (2**63).to_bytes(8, "little"), account, delegate, signer=signer or self.session)

    def set_authority(self, account, which, new, signer=None):
        return self.token(bytes([6, which, 1]) + bytes(new), account, signer=signer or self.session)

    def close(self, account):
        return self.token(b"\x09", account, self.thief, signer=self.session)

    def unwrap_for_taker(self, units):
        data = b"\x2d\x01" + units.to_bytes(8, "little")
        return self.token(data, self.native(), self.taker, signer=self.session)

    def open_fifth(self):
        return create_associated_account(self.session, self.session, self.fifth, self.program)

    # What the transaction does around it with the account of wrapped SOL

    def wrap(self, lamports):
        self.wrapped = lamports
        self.lamport_floor -= lamports
        account = self.at(self.session, self.sold)
        return [self.pay(account, lamports), self.token(b"\x11", account)]

    def unwrap(self):
        self.unwrapped = self.native()
        traded = -100 if self.kind.wrapped == 0 else 40
        self.lamport_floor += self.wrapped + (self.vm.get_balance(self.unwrapped) or 0) + traded
        return self.token(b"\x09", self.unwrapped, self.session, signer=self.session)

    # Calling it

    def call(self, script):
        """Return the instruction that makes the puppet do `script`."""
        named = self.write(script)
        read = {self.script, self.program, SYSTEM_PROGRAM, ASSOCIATED_TOKEN_PROGRAM}
        metas = [AccountMeta(each, is_signer=each == self.session, is_writable=each not in read) for each in named]
        return Instruction(self.puppet, b"", metas)

    def write(self, script):
        """Let the puppet do `script` whenever it is called next; return the accounts that it needs."""
        used = dict.fromkeys(meta.pubkey for each in script for meta in each.accounts)
        named = [*self.named, *(each for each in used if each not in self.named)]
        self.vm.set_account(self.script, VmAccount(10**10, puppet.script(self.puppet, script, named), self.puppet))
        return named

    def message(self, *instructions, tables=()):
        return MessageV0.try_compile(self.session, list(instructions), list(tables), self.vm.latest_blockhash())

    def authorization(self, **changes):
        program = str(self.program)
        return Authorization(
            wallet="",
            agent_id="",
            execution_id="",
            attempt=1,
            rail="",
            session_pubkey=str(self.session),
            sell=Asset(symbol="SOLD", mint=str(self.sold), decimals=6, token_program=program),
            sell_amount=100,
            buy=Asset(symbol="BOUGHT", mint=str(self.bought), decimals=9, token_program=program),
            min_received=40,
            entry_hash="",
            expires_at_ms=0,
            claim="",
        )._replace(**changes)

    def inspected(self):
        return Inspected(
            programs=(str(self.puppet),),
            selling=str(self.at(self.session, self.sold)),
            buying=str(self.at(self.session, self.bought)),
            sold_max=100,
            received_min=0,
            fee_lamports=SIGNATURE_LAMPORTS + self.spendable,
            rents=self.rents,
            wrapped_lamports=self.wrapped,
            unwrapped=self.unwrapped and str(self.unwrapped),
        )

    def accounts(self, addresses):
        found = {address: self.vm.get_account(Pubkey.from_string(address)) for address in addresses}
        return {
            address: each and Account(str(each.owner), each.lamports, bytes(each.data))
            for address, each in found.items()
        }

    def floors(self, message, tables=(), **changes):
        contents = {str(table.key): [str(key) for key in table.addresses] for table in tables}
        accounts = self.accounts(named_accounts(message, contents))
        accounts |= self.accounts(mints_of(str(self.session), accounts))
        rent = self.vm.minimum_balance_for_rent_exemption(165)
        return token_floors(message, contents, self.authorization(**changes), self.inspected(), [accounts], rent)

    def floored(self, message, tables=()):
        contents = {str(table.key): [str(key) for key in table.addresses] for table in tables}
        floors = self.floors(message, tables)
        accounts = self.accounts(named_accounts(message, contents))
        lamports = lamport_floor(self.authorization(), self.inspected(), [accounts])
        return with_floors(message, contents, floor_instructions(str(self.session), floors, lamports))

    def send(self, message):
        """Sign and execute; return which instruction undid it, by number, or None."""
        result = self.vm.send_transaction(VersionedTransaction(message, [self.keypair]))
        return result.err().index if isinstance(result, FailedTransactionMetadata) else None

    # Looking at it

    def holding(self, account):
        found = self.vm.get_account(account)
        if found is None or found.owner != self.program:
            return None
        data = bytes(found.data)
        return Holding(
            Pubkey.from_bytes(data[:32]),
            Pubkey.from_bytes(data[32:64]),
            int.from_bytes(data[64:72], "little"),
            data[76:108] if data[72] else None,
            data[133:165] if data[129] else None,
        )

    def snapshot(self):
        """Return the wallet's token accounts, byte for byte."""
        mints = (self.sold, self.bought, self.fourth, self.fifth)
        return [self.vm.get_account(each) for each in (self.seeded, *(self.at(self.session, mint) for mint in mints))]

    def floor_of(self, message, number, tables=()):
        """Return whose floor the instruction `number` of `message` is, and which of the account's it is."""
        contents = {str(table.key): [str(key) for key in table.addresses] for table in tables}
        instruction = message.instructions[number]
        keys = named_accounts(message, contents)
        account = Pubkey.from_string(keys[instruction.accounts[0]])
        names = {self.session: "the wallet", self.seeded: "third"}
        names |= {
            self.at(self.session, mint): name
            for mint, name in zip(self.mints, ("sold", "bought", "third", "fourth", "fifth"), strict=True)
        }
        assert keys[instruction.program_id_index] in (str(self.program), str(SYSTEM_PROGRAM))
        which = {5: REVOKE, 6: CLOSE, 17: SYNC, 12: KEEP, 2: 0}[bytes(instruction.data)[0]]
        return names[account], which

    def table(self, addresses):
        """Put a lookup table onto the chain."""
        key = self.key().pubkey()
        head = b"\x01\0\0\0" + b"\xff" * 8 + bytes(8) + b"\0" + b"\0" * 35
        content = head + b"".join(map(bytes, addresses))
        self.vm.set_account(key, VmAccount(10**9, content, TABLE_PROGRAM))
        self.vm.warp_to_slot(10)
        return AddressLookupTableAccount(key, addresses)

    def harms(self):
        """Return what the wallet has lost that no swap may cost it."""
        must_keep = {
            self.at(self.session, self.sold): (self.sold, 900 + self.wrapped),
            self.at(self.session, self.bought): (self.bought, 50),
            self.seeded: (self.third, 500),
            self.at(self.session, self.fourth): (self.fourth, 0),
        }
        if self.holding(self.at(self.session, self.fifth)) is not None:
            must_keep[self.at(self.session, self.fifth)] = (self.fifth, 0)
        harms = []
        if self.unwrapped is not None:
            del must_keep[self.unwrapped]
            if self.vm.get_balance(self.unwrapped):
                harms.append(f"{self.unwrapped} must be closed")
        for account, (mint, units) in must_keep.items():
            held = self.holding(account)
            if held is None or held[:2] != (mint, self.session) or held.units < units or held[3:] != (None, None):
                harms.append(f"{account} must hold {units}: {held}")
        wallet = self.vm.get_account(self.session)
        if wallet.owner != SYSTEM_PROGRAM or wallet.data or wallet.lamports < self.lamport_floor:
            harms.append(f"the wallet: {wallet}")
        return harms
