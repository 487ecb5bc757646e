import pytest

from tests.support import Setup


@pytest.fixture
def setup(tmp_path):
    made = Setup(tmp_path / "ledger.db")
    yield made
    made.guard.close()
