import pytest

from tests.executor.service.api.scene import Scene


@pytest.fixture
def scene(setup, tmp_path):
    return Scene(setup, tmp_path)


@pytest.fixture
def sqlite_scene(sqlite_setup, tmp_path):
    return Scene(sqlite_setup, tmp_path)
