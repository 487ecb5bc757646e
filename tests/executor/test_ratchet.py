"""Somebody writes to the database without the seal key: what a process has seen, it doesn't forget."""

import pytest
from sqlalchemy import create_engine, text

from executor.audit import check_ledger
from executor.errors import LedgerTampered
from executor.halts import EVERYTHING, Halter, Scope
from executor.ledger import EVERYBODY
from executor.limits import Limits
from executor.reasons import Reason


@pytest.fixture
def writer(setup):
    where = setup.path if isinstance(setup.path, str) else f"sqlite:///{setup.path}"
    engine = create_engine(where)
    yield Database(engine)
    engine.dispose()


class Database:
    """The database in the hands of somebody who has no key."""

    def __init__(self, engine):
        self._engine = engine
        self.dialect = engine.dialect.name

    def run(self, *statements):
        with self._engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def take(self, wallet):
        """Return all rows of a wallet, or of everybody."""
        with self._engine.begin() as connection:
            return {
                table: connection.execute(text(f"SELECT * FROM {table} WHERE wallet = :wallet"), {"wallet": wallet})
                .mappings()
                .all()
                for table in ("entries", "heads")
            }

    def put_back(self, wallet, taken):
        """Have the database hold of a wallet what it held once."""
        triggers = ("entries_refuse_update", "entries_refuse_delete", "attempts_have_no_gap", "attempts_keep_the_cap")
        with self._engine.begin() as connection:
            if self.dialect == "sqlite":
                for trigger in triggers:
                    connection.execute(text(f"DROP TRIGGER IF EXISTS {trigger}"))
            else:
                connection.execute(text("ALTER TABLE entries DISABLE TRIGGER ALL"))
            for table, rows in taken.items():
                connection.execute(text(f"DELETE FROM {table} WHERE wallet = :wallet"), {"wallet": wallet})
                for row in rows:
                    names = ", ".join(row)
                    values = ", ".join(f":{name}" for name in row)
                    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), dict(row))


def test_a_wallet_that_is_put_back_again_and_again_fires_no_more(setup, writer):
    setup.limits = Limits(executions_per_24h=3)
    setup.guard.change_limits(setup.limits)
    setup.activate()
    before = writer.take(setup.wallet)
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    for execution in range(2, 10):
        writer.put_back(setup.wallet, before)
        assert setup.guard.authorize(setup.request(execution)).reason is Reason.LEDGER_TAMPERED
        with pytest.raises(LedgerTampered, match="was put back to before"):
            setup.guard.headroom(setup.wallet)


@pytest.mark.parametrize("scope", [EVERYTHING, Scope("wallet")], ids=["everything", "wallet"])
def test_a_halt_that_is_put_back_holds(setup, writer, scope):
    setup.activate()
    chain = EVERYBODY if scope == EVERYTHING else setup.wallet
    before = writer.take(chain)
    setup.guard.halt(scope if scope == EVERYTHING else Scope(setup.wallet), Halter.OPERATOR, "a drill")
    writer.put_back(chain, before)
    assert setup.guard.authorize(setup.request(1)).reason is Reason.LEDGER_TAMPERED


def test_limits_that_are_put_back_are_not_those_that_hold(setup, writer):
    setup.activate()
    before = writer.take(EVERYBODY)
    setup.guard.change_limits(Limits(executions_per_24h=1))
    writer.put_back(EVERYBODY, before)
    assert setup.guard.authorize(setup.request(1)).reason is Reason.LEDGER_TAMPERED
    with pytest.raises(LedgerTampered):
        _ = setup.guard.ledger.limits


def test_what_everybody_was_told_stays_so_for_a_wallet_that_has_seen_it_even_after_a_restart(setup, writer):
    setup.activate()
    before = writer.take(EVERYBODY)
    setup.guard.change_limits(Limits(executions_per_24h=1))
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    setup.guard.close()
    writer.put_back(EVERYBODY, before)
    setup.guard = setup.open()
    assert setup.guard.authorize(setup.request(2)).reason is Reason.LEDGER_TAMPERED


def test_a_fork_of_a_chain_is_not_the_chain(setup, writer):
    """A process that knows nothing goes on from what was put back, and comes further than the first one was."""
    setup.activate()
    before = writer.take(setup.wallet)
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    seen = setup.guard.ledger._ratchet
    setup.guard.close()
    writer.put_back(setup.wallet, before)
    setup.guard = setup.open()
    for execution in range(2, 6):
        assert setup.guard.authorize(setup.request(execution)).outcome == "allowed"
    setup.guard.ledger._ratchet = seen
    assert setup.guard.authorize(setup.request(6)).reason is Reason.LEDGER_TAMPERED


SWALLOWS = {
    "sqlite": "CREATE TRIGGER swallow BEFORE {what} BEGIN SELECT RAISE(IGNORE); END",
    "postgresql": "CREATE TRIGGER swallow BEFORE {what} FOR EACH ROW EXECUTE FUNCTION swallow()",
}


@pytest.mark.parametrize("what", ["UPDATE ON heads", "INSERT ON entries"])
def test_a_trigger_that_swallows_what_is_written_authorizes_nothing(setup, writer, what):
    setup.activate()
    if writer.dialect == "postgresql":
        writer.run("CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    writer.run(SWALLOWS[writer.dialect].format(what=what))
    for execution in range(5):
        refused = setup.guard.authorize(setup.request(execution))
        assert refused.reason is Reason.LEDGER_TAMPERED
    (outcome,) = {each.reason for each in setup.guard.authorize_many([setup.request(number) for number in range(5)])}
    assert outcome is Reason.LEDGER_TAMPERED
    writer.run("DROP TRIGGER swallow" + (f" ON {what.split()[-1]}" if writer.dialect == "postgresql" else ""))
    assert setup.guard.authorize(setup.request(9)).authorization.attempt == 1
    assert check_ledger(setup.guard.ledger).findings == ()


def test_a_trigger_that_writes_the_old_head_is_noticed_at_the_next_fire(postgres_setup, writer_of_postgres):
    setup, writer = postgres_setup, writer_of_postgres
    setup.activate()
    writer.run(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
        "CREATE TRIGGER keep BEFORE UPDATE ON heads FOR EACH ROW EXECUTE FUNCTION keep()",
        "ALTER TABLE entries DISABLE TRIGGER ALL",
        "DROP INDEX attempt_numbered_once",
    )
    outcomes = []
    for execution in range(5):
        outcomes.append(setup.guard.authorize(setup.request(execution)))
        writer.run(f"DELETE FROM entries WHERE attempt = {execution + 1}")
    assert [each.reason for each in outcomes[1:]] == [Reason.LEDGER_TAMPERED] * 4


@pytest.fixture
def writer_of_postgres(postgres_setup):
    engine = create_engine(postgres_setup.path)
    yield Database(engine)
    engine.dispose()


def test_a_function_that_answers_what_was_is_noticed(postgres_setup, writer_of_postgres):
    setup, writer = postgres_setup, writer_of_postgres
    setup.activate()
    writer.run(
        "CREATE TABLE old_heads AS SELECT * FROM heads",
        "CREATE TABLE old_entries AS SELECT * FROM entries",
    )
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    source = "SELECT pg_get_functiondef('lock_and_read'::regproc)"
    with writer._engine.begin() as connection:
        (function,) = connection.execute(text(source)).one()
    writer.run(function.replace("FROM heads", "FROM old_heads").replace("FROM entries", "FROM old_entries"))
    assert setup.guard.authorize(setup.request(2)).reason is Reason.LEDGER_TAMPERED


def test_no_process_takes_anothers_fires_for_a_forgery(postgres_setup):
    """Three that take turns, look at what the others did, and change what concerns everybody."""
    setup = postgres_setup
    guards = [setup.guard, setup.open(), setup.open()]
    setup.activate()
    for execution in range(60):
        guard = guards[execution * 7 % 3]
        assert guard.authorize(setup.request(execution)).authorization.attempt == execution + 1
        assert guards[execution % 3].headroom(setup.wallet).executions.used == execution + 1
        if execution % 10 == 9:
            guards[execution % 3].halt(EVERYTHING, Halter.OPERATOR, "a drill")
            assert guards[(execution + 1) % 3].authorize(setup.request(1_000 + execution)).reason is Reason.HALTED
            guards[(execution + 2) % 3].lift(EVERYTHING, Halter.OPERATOR)
    for guard in guards[1:]:
        assert check_ledger(guard.ledger).findings == ()
        guard.close()


def test_a_restart_forgets(setup, writer):
    """What stays possible is said: then only a checkpoint finds it."""
    setup.activate()
    before = writer.take(setup.wallet)
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    setup.guard.close()
    writer.put_back(setup.wallet, before)
    setup.guard = setup.open()
    assert setup.guard.authorize(setup.request(2)).outcome == "allowed"
