"""Reading ahead on PostgreSQL: all that a fire asks for, in one round trip.

Each round trip costs more than the statement that it carries. So a function of the database takes the locks and then
runs the fire's reads one after the other; being VOLATILE at READ COMMITTED, it gives each what is committed when it
begins, just as statements of their own would see it. What it returns are answers to those statements, no more: whoever
asks another question, or anything after a write, asks the database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import text

from executor.ledger import statements as sql
from executor.ledger.statements import Cursor, Statement
from executor.ledger.wallet import EVERYBODY

if TYPE_CHECKING:
    from sqlalchemy import Dialect

    from executor.ledger.session import Session
    from executor.ledger.statements import DriverCursor, Row

__all__ = ["HALTS_LOCK", "LOCK_AND_READ_FUNCTION", "Ahead", "AnsweredCursor"]

HALTS_LOCK: Final = 0x486F6C64
"""The advisory lock of everything: shared by every change, held alone by a halt of everything."""


class Ahead(NamedTuple):
    """What a change will ask about, besides its wallet."""

    agent_id: str
    execution_id: str


class AnsweredCursor(Cursor):
    """A cursor that has some answers at hand, until something is written."""

    __slots__ = ("_answers", "session")

    def __init__(self, cursor: DriverCursor, dialect: Dialect, session: Session) -> None:
        super().__init__(cursor, dialect)
        self.session = session
        self._answers: dict[tuple[object, ...], list[Row]] = {}

    def read_ahead(self, wallet: str, ahead: Ahead, seen_seq: int) -> None:
        """Lock `wallet` against other changes, and everything against halts, and have a fire's answers at hand."""
        self._answers = {}
        asked = {"halts_lock": HALTS_LOCK, "wallet": wallet, "everybody": EVERYBODY, "seen_seq": seen_seq}
        asked |= ahead._asdict()
        self._answers = _answers(wallet, ahead, super().all(LOCK_AND_READ, **asked))

    def send(self, statement: Statement, /, **values: object) -> None:
        """Run a statement whose answer nobody waits for; what was answered before no longer counts."""
        self._answers = {}
        super().send(statement, **values)

    def one(self, statement: Statement, /, **values: object) -> Row | None:
        """Return the first row; None if there is none."""
        answered = self._answers.get((statement, *values.values()))
        if answered is None:
            return super().one(statement, **values)
        return answered[0] if answered else None

    def all(self, statement: Statement, /, **values: object) -> list[Row]:
        """Return every row."""
        answered = self._answers.get((statement, *values.values()))
        return super().all(statement, **values) if answered is None else answered


def _answers(wallet: str, ahead: Ahead, rows: list[Row]) -> dict[tuple[object, ...], list[Row]]:
    """Return the rows by what they answer: a statement and its values. That an execution has none, is an answer too."""
    answers: dict[tuple[object, ...], list[Row]] = {(sql.FIND_EXECUTION, wallet, ahead.execution_id): []}
    for what, content, chain_hash, key_id, mac, number, newest in rows:
        sealed = (content, chain_hash, key_id, mac)
        head = (content, key_id, mac)
        match what:
            case "head":
                answers[sql.LOCK_HEAD, wallet] = [(*head, number)]
            case "time":
                answers[sql.READ_TIME,] = [(number, int(key_id), newest)]
            case "everybody":
                answers[sql.READ_EVERYBODY, EVERYBODY] = [(*head, number, newest)]
            case "execution":
                answers[sql.FIND_EXECUTION, wallet, ahead.execution_id].append(sealed)
            case "activation" | "seen":
                answers[sql.FIND_SEQ, wallet, number] = [sealed]
            case "attempt":
                answers[sql.FIND_ATTEMPT, wallet, number] = [sealed]
    return answers


LOCK_AND_READ: Final = Statement(
    text("SELECT * FROM lock_and_read(:halts_lock, :wallet, :agent_id, :execution_id, :everybody, :seen_seq)")
)

LOCK_AND_READ_FUNCTION: Final = """
    CREATE OR REPLACE FUNCTION lock_and_read(
        halts_lock bigint, its_wallet text, its_agent text, its_execution text, everybody text, seen_seq bigint
    )
    RETURNS TABLE (what text, content bytea, hash bytea, key_id text, mac bytea, number bigint, newest bigint)
    LANGUAGE plpgsql VOLATILE AS $$
    #variable_conflict use_column
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(halts_lock);
        RETURN QUERY SELECT 'head', content, NULL::bytea, key_id, mac, seq, NULL::bigint
            FROM heads WHERE wallet = its_wallet FOR UPDATE;
        RETURN QUERY SELECT 'time', NULL::bytea, NULL::bytea, pg_backend_pid()::text, NULL::bytea,
            (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
            (extract(epoch FROM pg_conf_load_time()) * 1000000)::bigint;
        RETURN QUERY SELECT 'everybody', content, NULL::bytea, key_id, mac, seq,
            (SELECT max(seq) FROM entries WHERE wallet = everybody)
            FROM heads WHERE wallet = everybody;
        RETURN QUERY SELECT 'execution', content, hash, key_id, mac, seq, NULL::bigint
            FROM entries WHERE wallet = its_wallet AND execution_id = its_execution AND step IS NOT NULL ORDER BY step;
        RETURN QUERY SELECT 'activation', content, hash, key_id, mac, seq, NULL::bigint
            FROM entries WHERE wallet = its_wallet AND agent_id = its_agent AND agent_state = 'active'
            ORDER BY seq DESC LIMIT 1;
        RETURN QUERY SELECT 'seen', content, hash, key_id, mac, seq, NULL::bigint
            FROM entries WHERE wallet = its_wallet AND seq = seen_seq
            AND seq < (SELECT seq FROM heads WHERE wallet = its_wallet);
        RETURN QUERY SELECT 'attempt', content, hash, key_id, mac, attempt, NULL::bigint
            FROM entries WHERE wallet = its_wallet AND attempt = 1
                + (SELECT max(attempt) FROM entries WHERE wallet = its_wallet)
                - (SELECT executions_per_24h FROM ledger);
    END $$
"""
