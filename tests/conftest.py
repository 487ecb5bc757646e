import pytest
from hypothesis import settings
from sqlalchemy import create_engine

from tests.support import Setup

pytest_plugins = ["tests.postgres"]

# On a busy machine an example may take long for reasons of its own; the whole test still has its time limit.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


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
