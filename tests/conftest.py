import json

import pytest
from hypothesis import settings
from sqlalchemy import create_engine

from executor.entries import Entry
from executor.evidence import decision_of, replay
from executor.ledger import WalletTransaction
from permits.canonical import canonicalize
from tests.support import Setup

pytest_plugins = ["tests.postgres"]

# On a busy machine an example may take long for reasons of its own; the whole test still has its time limit.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _every_entry_is_canonical_and_replays(monkeypatch):
    """Hold every entry that any test has written against what it says."""
    append = WalletTransaction.append

    def checked(transaction, *arguments, **fields):
        sealed = append(transaction, *arguments, **fields)
        assert canonicalize(json.loads(sealed.content)) == sealed.content
        entry = Entry.read(sealed.content)
        assert entry == sealed.entry
        if {"evidence", "decision"} <= entry.body.keys():
            activated = transaction.entry(entry.body["evidence"]["activation"]).entry
            assert replay(entry, activated) == decision_of(entry)
        return sealed

    monkeypatch.setattr(WalletTransaction, "append", checked)


@pytest.fixture
def sqlite_setup(tmp_path):
    made = Setup(tmp_path / "ledger.db")
    yield made
    made.guard.close()


@pytest.fixture(scope="session")
def one_database(postgres_server):
    from tests.postgres import database  # noqa: PLC0415 - pytest rewrites a plugin's asserts if it imports it first

    with database(postgres_server) as url:
        yield url


@pytest.fixture
def postgres_ledger(one_database):
    """Lend the URL of a database with nothing in it: one that is emptied comes sooner than a new one."""
    yield one_database
    engine = create_engine(one_database)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    engine.dispose()


@pytest.fixture
def postgres_setup(postgres_ledger):
    made = Setup(postgres_ledger)
    yield made
    made.guard.close()


@pytest.fixture(params=["sqlite_setup", "postgres_setup"], ids=["sqlite", "postgresql"])
def setup(request):
    """Return a user with a guard, on each database."""
    return request.getfixturevalue(request.param)
