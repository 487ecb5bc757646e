"""Checkpoints, on each database: whatever is put back to before one is found, and a false one proves nothing."""

import io
import json
import sqlite3
from contextlib import closing, contextmanager
from hashlib import sha256

import pytest

from executor.audit import check_ledger
from executor.checkpoint import FORMAT, LINE_BYTES_MAX, SIGNED_TAG, find_rollbacks, write_checkpoint
from executor.errors import CheckpointRefused, ClockUntrusted, LedgerTampered
from executor.halts import EVERYTHING, Halter
from executor.ledger import EVERYBODY, Ledger
from permits import keys
from permits.canonical import canonicalize
from tests.support import T0, key, uuid

AUDITOR = key(500)
TRIGGERS = {
    "sqlite": ("entries_refuse_update", "entries_refuse_delete"),
    "postgresql": ("entries_refuse_change ON entries",),
}


@pytest.fixture
def used(setup):
    """Return a user with six entries, beside another user with one, after a halt of everything and its end."""
    setup.activate()
    for number in range(1, 5):
        setup.guard.authorize(setup.request(number))
    setup.guard.reserve_session_key(key(77).wallet_address, uuid(7), key(78).wallet_address)
    setup.guard.mark_restored()
    return setup


def checkpoint(setup, signer=AUDITOR):
    file = io.BytesIO()
    write_checkpoint(setup.guard.ledger, signer, file)
    return file.getvalue()


def compare(setup, taken, auditor=AUDITOR.wallet_address):
    return find_rollbacks(setup.guard.ledger, io.BytesIO(taken), auditor=auditor)


def lines(taken):
    return [json.loads(line) for line in taken.splitlines()]


def signed(documents, signer=AUDITOR, **last):
    """Return a checkpoint of these lines as its signer would make it, but for what `last` says otherwise."""
    written = b"".join(canonicalize(each) + b"\n" for each in documents)
    digest = sha256(written).digest()
    ending = {
        "auditor": signer.wallet_address,
        "count": len(documents) - 1,
        "sha256": digest.hex(),
        "signature": keys.encode(signer.sign(SIGNED_TAG + digest)),
        **last,
    }
    return written + canonicalize(ending) + b"\n"


# What a checkpoint says


def test_it_says_where_every_chain_stands(used):
    first, *standing, last = lines(checkpoint(used))
    assert first == {"atMs": T0, "checkpoint": FORMAT, "ledger": used.guard.ledger.id}
    assert [each["wallet"] for each in standing] == [EVERYBODY, *sorted([used.wallet, key(77).wallet_address])]
    for each in standing:
        with used.guard.ledger.view(each["wallet"]) as view:
            assert (each["seq"], each["hash"]) == (view.head.seq, view.head.hash)
    assert (last["auditor"], last["count"]) == (AUDITOR.wallet_address, 3)
    assert signed([first, *standing]) == checkpoint(used)


def test_a_ledger_that_only_goes_on_has_nothing_to_find(used):
    taken = checkpoint(used)
    used.guard.lift(EVERYTHING, Halter.OPERATOR)
    for number in range(5, 9):
        assert used.guard.authorize(used.request(number)).outcome == "allowed"
    assert compare(used, taken) == (T0, 3, ())


def test_an_empty_ledger_has_one_too(setup):
    taken = checkpoint(setup)
    setup.activate()
    assert compare(setup, taken) == (T0, 1, ())


def test_many_wallets_are_each_told_once(setup):
    """More than any look at the database takes at once, with heads and without entries among them."""
    wallets = [key(number).wallet_address for number in range(1_000, 1_030)]
    for wallet in wallets:
        setup.guard.ledger.change(wallet, lambda _wallet: None, create=True)
    told = [each["wallet"] for each in lines(checkpoint(setup))[1:-1]]
    assert told == [EVERYBODY, *sorted(wallets)]
    assert compare(setup, checkpoint(setup)).findings == ()


def test_a_wallet_is_told_as_it_stood_when_the_checkpoint_began(used):
    """Others go on writing, even to what was not yet looked at."""

    class Writing(io.BytesIO):
        def write(self, line):
            if not self.tell():
                used.guard.reserve_session_key(key(77).wallet_address, uuid(8), key(79).wallet_address)
                used.guard.reserve_session_key(key(76).wallet_address, uuid(8), key(79).wallet_address)
            return super().write(line)

    file = Writing()
    assert write_checkpoint(used.guard.ledger, AUDITOR, file) == 3
    assert {each["wallet"]: each["seq"] for each in lines(file.getvalue())[1:-1]} == {
        EVERYBODY: 2,
        used.wallet: 6,
        key(77).wallet_address: 1,
    }
    assert compare(used, file.getvalue()).findings == ()


# What is put back is found


def edit(setup, *statements):
    """Change the database as somebody would who has it but not the key, with the triggers gone, and open it again."""
    with setup.guard.ledger.engine.begin() as connection:
        for trigger in TRIGGERS[connection.dialect.name]:
            connection.exec_driver_sql(f"DROP TRIGGER {trigger}")
        for statement in statements:
            assert connection.exec_driver_sql(statement).rowcount != 0, statement
    setup.reopen()


@contextmanager
def put_back(setup, where="wallet IS NOT NULL"):
    """Put the rows of some wallets back to what they are now, once the block is over: all of them are true."""
    with setup.guard.ledger.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE before AS SELECT * FROM heads WHERE {where}")
    yield
    edit(
        setup,
        f"DELETE FROM entries WHERE {where}"
        " AND seq > coalesce((SELECT seq FROM before WHERE before.wallet = entries.wallet), 0)",
        f"DELETE FROM heads WHERE {where}",
        "INSERT INTO heads SELECT * FROM before",
        "DROP TABLE before",
    )


def test_a_database_put_back_to_before_it_is_found(used):
    used.guard.lift(EVERYTHING, Halter.OPERATOR)
    with put_back(used):
        used.guard.authorize(used.request(5))
        used.guard.reserve_session_key(key(76).wallet_address, uuid(8), key(79).wallet_address)
        used.guard.halt(EVERYTHING, Halter.USER, "stop")
        taken = checkpoint(used)
    assert check_ledger(used.guard.ledger).findings == ()
    at_ms, wallets, findings = compare(used, taken)
    assert (at_ms, wallets) == (T0, 4)
    assert sorted(findings) == sorted(
        [
            f"{EVERYBODY}: the chain ends at entry 3, but stood at 4: it was put back",
            f"{used.wallet}: the chain ends at entry 6, but stood at 7: it was put back",
            f"{key(76).wallet_address}: it is gone, but stood at entry 1",
        ]
    )


def test_a_file_put_back_to_before_it_is_found(sqlite_setup, tmp_path):
    sqlite_setup.activate()
    with closing(sqlite3.connect(sqlite_setup.path)) as connection:
        connection.execute("VACUUM INTO ?", [str(tmp_path / "before.db")])
    sqlite_setup.guard.authorize(sqlite_setup.request(1))
    taken = checkpoint(sqlite_setup)
    sqlite_setup.guard.close()
    sqlite_setup.path.unlink()
    (tmp_path / "before.db").rename(sqlite_setup.path)
    sqlite_setup.guard = sqlite_setup.open()
    assert check_ledger(sqlite_setup.guard.ledger).findings == ()
    (finding,) = compare(sqlite_setup, taken).findings
    assert finding == f"{sqlite_setup.wallet}: the chain ends at entry 2, but stood at 3: it was put back"
    assert sqlite_setup.guard.authorize(sqlite_setup.request(1)).authorization.attempt == 1  # as if it were the first


def test_one_wallet_put_back_is_found(used):
    used.guard.lift(EVERYTHING, Halter.OPERATOR)
    with put_back(used, f"wallet = '{used.wallet}'"):
        used.guard.stop(used.wallet, uuid(1))
        taken = checkpoint(used)
    assert check_ledger(used.guard.ledger).findings == ()
    (finding,) = compare(used, taken).findings
    assert finding == f"{used.wallet}: the chain ends at entry 6, but stood at 7: it was put back"


def test_a_wallet_put_back_that_went_on_is_found(used):
    used.guard.lift(EVERYTHING, Halter.OPERATOR)
    with put_back(used, f"wallet = '{used.wallet}'"):
        used.guard.stop(used.wallet, uuid(1))
        taken = checkpoint(used)
    used.guard.authorize(used.request(5))
    used.guard.authorize(used.request(6))
    assert check_ledger(used.guard.ledger).findings == ()
    (finding,) = compare(used, taken).findings
    assert finding == f"{used.wallet}: entry 7 is another than it was: the chain was put back, and went on"


def test_a_wallet_that_is_gone_is_found(used):
    taken = checkpoint(used)
    edit(used, *(f"DELETE FROM {table} WHERE wallet = '{used.wallet}'" for table in ("entries", "heads")))
    assert check_ledger(used.guard.ledger).findings == ()
    (finding,) = compare(used, taken).findings
    assert finding == f"{used.wallet}: it is gone, but stood at entry 6"


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM entries WHERE seq = 6", "an entry is gone"),
        ("UPDATE entries SET hash = content WHERE seq = 6", "doesn't fit its seal"),
        ("UPDATE heads SET mac = content WHERE seq = 6", "doesn't fit its seal"),
    ],
)
def test_damage_where_a_chain_stood_is_found(used, statement, found):
    taken = checkpoint(used)
    edit(used, statement)
    (finding,) = compare(used, taken).findings
    assert found in finding


# What proves nothing is refused


def another_ledger(used):
    file = io.BytesIO()
    with Ledger.open(used.path.with_name("other.db"), seal_keys=used.seal_keys, clock=lambda: T0) as ledger:
        write_checkpoint(ledger, AUDITOR, file)
    return file.getvalue()


def replaced(old, new):
    def change(_setup, taken):
        assert old in taken
        return taken.replace(old, new, 1)

    return change


def resigned(change, **last):
    """Return a function that has the auditor itself sign the lines that `change` made."""

    def sign(_setup, taken):
        documents = lines(taken)[:-1]
        return signed(change(documents) or documents, **last)

    return sign


CUT = "cut short"
FALSE = {
    "nothing": (lambda _, taken: taken[:0], CUT),
    "the first line alone": (lambda _, taken: taken[: taken.index(b"\n") + 1], CUT),
    "no last line": (lambda _, taken: taken[: taken.rindex(b"{")], CUT),
    "half a last line": (lambda _, taken: taken[:-20], CUT),
    "no end of the last line": (lambda _, taken: taken[:-1], CUT),
    "the last line alone": (lambda _, taken: taken[taken.rindex(b"{") :], "not where it belongs"),
    "a line less": (
        lambda _, taken: b"".join(taken.splitlines(keepends=True)[:2] + taken.splitlines(keepends=True)[3:]),
        "not those that were signed",
    ),
    "a line twice": (
        lambda _, taken: b"".join(line * (1 + (b"hash" in line)) for line in taken.splitlines(keepends=True)),
        "not those that were signed",
    ),
    "another order": (
        lambda _, taken: b"".join([(rows := taken.splitlines(keepends=True))[0], rows[2], rows[1], *rows[3:]]),
        "not those that were signed",
    ),
    "another number": (replaced(b'"seq":6', b'"seq":5'), "not those that were signed"),
    "another time": (replaced(b'"atMs":1', b'"atMs":2'), "not those that were signed"),
    "a number that is none": (replaced(b'"seq":6', b'"seq":true'), "line 4 is none"),
    "a negative number": (replaced(b'"seq":6', b'"seq":-6'), "line 4 is none"),
    "a number past all others": (replaced(b'"seq":6', b'"seq":9223372036854775807'), "line 4 is none"),
    "a fraction": (replaced(b'"seq":6', b'"seq":6.0'), "line 4 is none"),
    "a name twice": (replaced(b'"seq":6', b'"seq":1,"seq":6'), "line 4 is not spelled"),
    "white space": (replaced(b'"seq":6', b'"seq": 6'), "line 4 is not spelled"),
    "an unknown name": (replaced(b'"seq":6', b'"seq":6,"of":1'), "line 4 is none"),
    "no text": (replaced(b'"seq":6', b'"seq":\xff'), "line 4 is none"),
    "a line without an end": (replaced(b'"seq":6', b'"seq":' + b"6" * LINE_BYTES_MAX), "line 4 is none"),
    "an endless line": (lambda _, taken: taken[:0] + b" " * 10**6, "line 1 is none"),
    "something after it": (lambda _, taken: taken + b"\n", "something follows"),
    "two of them": (lambda _, taken: taken * 2, "something follows"),
    "another format": (replaced(b"checkpoint/v1", b"checkpoint/v2"), "line 1 is none"),
    "another ledger": (lambda setup, _: another_ledger(setup), "the checkpoint is of ledger"),
    "another auditor": (lambda setup, _: checkpoint(setup, key(501)), "the checkpoint is of auditor"),
    "another's signature": (
        lambda _, taken: signed(lines(taken)[:-1], key(501), auditor=AUDITOR.wallet_address),
        "the signature is not the auditor's",
    ),
    "a signature over something else": (
        resigned(lambda _: None, signature=keys.encode(AUDITOR.sign(b"something else"))),
        "the signature is not the auditor's",
    ),
    "a signature over the digest without its tag": (
        lambda _, taken: signed(
            lines(taken)[:-1], signature=keys.encode(AUDITOR.sign(bytes.fromhex(lines(taken)[-1]["sha256"])))
        ),
        "the signature is not the auditor's",
    ),
    "a signature that is none": (resigned(lambda _: None, signature="1" * 63), "line 5 is none"),
    "a signature of other bytes": (resigned(lambda _: None, signature="z" * 88), "the signature is not the auditor's"),
    "another count": (resigned(lambda _: None, count=4), "not those that were signed"),
    "another digest": (resigned(lambda _: None, sha256="00" * 32), "not those that were signed"),
    "two beginnings": (resigned(lambda rows: [rows[0], *rows]), "line 2 is not where it belongs"),
    "no beginning": (resigned(lambda rows: rows[1:]), "line 1 is not where it belongs"),
}


@pytest.mark.parametrize("kind", FALSE)
def test_a_false_checkpoint_is_refused(sqlite_used, kind):
    change, told = FALSE[kind]
    false = change(sqlite_used, checkpoint(sqlite_used))
    with pytest.raises(CheckpointRefused, match=told) as refused:
        compare(sqlite_used, false)
    assert str(refused.value).isprintable()


@pytest.fixture
def sqlite_used(sqlite_setup):
    """Return the same as `used`, on SQLite: these tests never reach the database."""
    sqlite_setup.activate()
    for number in range(1, 5):
        sqlite_setup.guard.authorize(sqlite_setup.request(number))
    sqlite_setup.guard.mark_restored()
    sqlite_setup.guard.reserve_session_key(key(77).wallet_address, uuid(7), key(78).wallet_address)
    return sqlite_setup


@pytest.mark.parametrize("address", [*sorted(keys.SMALL_ORDER_KEYS), "nobody", ""])
def test_an_auditor_who_is_everybody_or_nobody_is_none(sqlite_used, address):
    """For a key of small order a lax verifier takes a signature that anyone can make up."""
    forged = signed(lines(checkpoint(sqlite_used))[:-1], auditor=address, signature=keys.encode(b"\x01" + bytes(63)))
    with pytest.raises(CheckpointRefused):
        compare(sqlite_used, forged, auditor=address)


def test_a_file_that_changes_between_its_two_readings_is_refused(sqlite_used):
    true, forged = checkpoint(sqlite_used), checkpoint(sqlite_used).replace(b'"seq":6', b'"seq":5')

    class Changing(io.BytesIO):
        def seek(self, *place):
            super().seek(0)
            self.truncate()
            self.write(forged)
            return super().seek(*place)

    with pytest.raises(CheckpointRefused, match="not those that were signed"):
        find_rollbacks(sqlite_used.guard.ledger, Changing(true), auditor=AUDITOR.wallet_address)


# Only a true ledger gets one


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM entries WHERE seq = 4", "entries are gone above 0"),
        ("UPDATE entries SET mac = hash WHERE seq = 4", "doesn't fit its seal"),
        ("UPDATE entries SET execution_id = NULL WHERE seq = 4", "filed under what it doesn't say"),
        ("DELETE FROM heads WHERE seq = 6", "has nothing of wallet"),
    ],
)
def test_a_ledger_that_is_not_true_gets_none(used, statement, found):
    edit(used, statement)
    file = io.BytesIO()
    with pytest.raises(LedgerTampered, match=found):
        write_checkpoint(used.guard.ledger, AUDITOR, file)
    with pytest.raises(CheckpointRefused, match=CUT):
        compare(used, file.getvalue())


def test_without_a_time_there_is_none(used):
    used.now_ms -= 10_000
    with pytest.raises(ClockUntrusted):
        checkpoint(used)


class Elsewhere:
    """A signer that answers with a signature over something else, or with none."""

    wallet_address = AUDITOR.wallet_address

    def __init__(self, answer):
        self._answer = answer

    def sign(self, _message):
        return self._answer


@pytest.mark.parametrize("answer", [AUDITOR.sign(b"something else"), b"", AUDITOR.sign(b"")[:-1], bytes(64), bytes(65)])
def test_a_signer_that_signs_something_else_is_noticed(used, answer):
    file = io.BytesIO()
    with pytest.raises(CheckpointRefused, match="the signature is not the auditor's"):
        write_checkpoint(used.guard.ledger, Elsewhere(answer), file)
    with pytest.raises(CheckpointRefused, match=CUT):
        compare(used, file.getvalue())
