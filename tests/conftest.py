import pytest
from hypothesis import settings

from tests.support import Setup

pytest_plugins = ["tests.postgres"]

# On a busy machine an example may take long for reasons of its own; the whole test still has its time limit.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture
def setup(tmp_path):
    made = Setup(tmp_path / "ledger.db")
    yield made
    made.guard.close()
