"""Negative controls: what looks like a lock and isn't gets past its cap here, by the players that the guard withstands.

If one of these no longer failed, the races would prove nothing.
"""

import sqlite3
from contextlib import closing

import psycopg
import pytest

from tests.races import recipes
from tests.races.players import at_once, finish, let_on, seated, start
from tests.races.recipes import CAP

pytestmark = pytest.mark.campaign

PROCESSES, ROUNDS = 8, 20


@pytest.fixture(scope="module")
def players():
    with seated(PROCESSES, 1) as lines:
        yield lines


@pytest.fixture
def connection(players, postgres_url):
    url = postgres_url.replace("+psycopg", "")
    at_once(players, recipes.connect, url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(recipes.TABLES)
        yield connection
    at_once(players, recipes.disconnect)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "attempts.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE attempts (user_id INTEGER)")
    return path


def inserted(players, connection, recipe):
    """Yield how many attempts each round's user gets."""
    for user in range(ROUNDS):
        at_once(players, recipes.follow, recipe, user)
        yield connection.execute(recipes.COUNT, {"user": user}).fetchone()[0]


def count_of(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM attempts").fetchone()[0]


def test_the_good_recipe_keeps_the_cap_exactly(players, connection):
    assert list(inserted(players, connection, recipes.POSTGRES_GOOD)) == [CAP] * ROUNDS


@pytest.mark.parametrize("recipe", recipes.POSTGRES_BAD)
def test_a_bad_recipe_gets_past_the_cap(players, connection, recipe):
    assert any(count > CAP for count in inserted(players, connection, recipes.POSTGRES_BAD[recipe]))


def test_the_good_recipe_on_sqlite_keeps_the_cap_exactly(players, path):
    answers = at_once(players, recipes.follow_on_sqlite, path, recipes.SQLITE_GOOD)
    assert answers == ["committed"] * PROCESSES
    assert count_of(path) == CAP


@pytest.mark.parametrize("recipe", recipes.SQLITE_BAD)
def test_a_bad_recipe_on_sqlite_gets_past_the_cap(players, path, recipe):
    start(players, recipes.follow_on_sqlite, path, recipes.SQLITE_BAD[recipe])
    let_on(players)
    assert finish(players) == ["committed"] * PROCESSES
    assert count_of(path) == PROCESSES > CAP


def test_deferred_transactions_on_sqlite_fail_for_all_but_one(players, path):
    start(players, recipes.follow_on_sqlite, path, recipes.SQLITE_DEFERRED)
    let_on(players)
    answers = finish(players)
    assert sorted(answers) == ["committed"] + ["database is locked"] * (PROCESSES - 1)
    assert count_of(path) == 1
