"""Ways to count and then insert, known good and known to fail, each by itself with a small table of its own.

On PostgreSQL a pause within the transaction gives others the time that a busy server would; on SQLite all players meet
between their reads and their writes.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

import psycopg

CAP = 2
PAUSE = "SELECT pg_sleep(0.03)"

TABLES = "CREATE TABLE users (id bigint PRIMARY KEY); CREATE TABLE attempts (user_id bigint);"
MAKE_USER = "INSERT INTO users VALUES (%(user)s) ON CONFLICT DO NOTHING"
LOCK_USER = "SELECT id FROM users WHERE id = %(user)s FOR UPDATE"
COUNT = "SELECT count(*) FROM attempts WHERE user_id = %(user)s"
INSERT = "INSERT INTO attempts VALUES (%(user)s)"
LOCK_ADVISORY = "SELECT pg_advisory_xact_lock(%(user)s)"
LOCK_ADVISORY_AND_COUNT = f"SELECT pg_advisory_xact_lock(%(user)s), ({COUNT})"
INSERT_WHERE_COUNT = f"INSERT INTO attempts SELECT %(user)s WHERE ({COUNT}) < {CAP}"
INSERT_LOCKED_IN_CTE = f"WITH held AS ({LOCK_USER}) INSERT INTO attempts SELECT id FROM held WHERE ({COUNT}) < {CAP}"

READ_COMMITTED, REPEATABLE_READ = "BEGIN ISOLATION LEVEL READ COMMITTED", "BEGIN ISOLATION LEVEL REPEATABLE READ"

POSTGRES_GOOD = [MAKE_USER, READ_COMMITTED, LOCK_USER, COUNT, PAUSE, INSERT]
"""Make the user's row sure, lock it and nothing else, read in later statements."""
POSTGRES_BAD = {
    "count, then insert": [READ_COMMITTED, COUNT, PAUSE, INSERT],
    "insert where the count allows": [READ_COMMITTED, INSERT_WHERE_COUNT, PAUSE],
    "FOR UPDATE in a CTE": [MAKE_USER, READ_COMMITTED, INSERT_LOCKED_IN_CTE, PAUSE],
    "FOR UPDATE on a row that isn't there yet": [READ_COMMITTED, LOCK_USER, COUNT, PAUSE, MAKE_USER, INSERT],
    "REPEATABLE READ": [MAKE_USER, REPEATABLE_READ, LOCK_USER, COUNT, PAUSE, INSERT],
    "REPEATABLE READ, an advisory lock": [REPEATABLE_READ, LOCK_ADVISORY, COUNT, PAUSE, INSERT],
    "REPEATABLE READ, an advisory lock in the same statement": [
        REPEATABLE_READ,
        LOCK_ADVISORY_AND_COUNT,
        PAUSE,
        INSERT,
    ],
    "an advisory lock in the same statement": [READ_COMMITTED, LOCK_ADVISORY_AND_COUNT, PAUSE, INSERT],
}
"""INSERT is left out where a count was CAP or more."""

SQLITE_GOOD = {"isolation_level": None}, "BEGIN IMMEDIATE"
SQLITE_BAD = {
    "sqlite3's default": ({}, None),
    "sqlite3's IMMEDIATE": ({"isolation_level": "IMMEDIATE"}, None),
}
"""How to connect, and how to begin. By itself sqlite3 begins only when it sees the INSERT, after the reads."""
SQLITE_DEFERRED = {"isolation_level": None}, "BEGIN DEFERRED"


# Tasks


def connect(player, url):
    def at_the_signal():
        player.connection = psycopg.connect(url, autocommit=True)

    return at_the_signal


def disconnect(player):
    return player.connection.close


def follow(player, recipe, user):
    """Follow a recipe on PostgreSQL."""

    def at_the_signal():
        for statement in recipe:
            done = player.connection.execute(statement, {"user": user})
            if "count" in statement and done.description and done.fetchone()[-1] >= CAP:
                break
        player.connection.execute("COMMIT")

    return at_the_signal


def follow_on_sqlite(player, path, recipe):
    """Follow a recipe on SQLite; tell whether that worked."""
    how, begin = recipe

    def at_the_signal():
        with closing(sqlite3.connect(path, **how)) as connection:
            if begin:
                connection.execute(begin)
            (count,) = connection.execute("SELECT count(*) FROM attempts").fetchone()
            if recipe != SQLITE_GOOD:  # there nobody else gets this far
                player.meet()
            try:
                if count < CAP:
                    connection.execute("INSERT INTO attempts VALUES (1)")
                connection.commit()
            except sqlite3.OperationalError as error:
                return str(error)
        return "committed"

    return at_the_signal
