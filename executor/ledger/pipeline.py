"""libpq's pipeline, spoken directly: a transaction's statements travel together, and it waits for answers alone.

psycopg's own pipeline hands each statement to the network by itself, and waits once more when it is left. That was a
third of a fire's time. Here statements are queued until somebody asks for an answer; each is prepared once on a
connection, under a name that follows from what it says, and its answer comes in binary. Values are adapted by psycopg.
"""

from __future__ import annotations

import re
import select
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from psycopg import Connection, errors, pq
from psycopg.adapt import PyFormat, Transformer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.pq.abc import PGresult

    from executor.ledger.session import Session

__all__ = ["Pipeline"]

BINARY: Final = 1

_placeholders = re.compile("%[s%]")


class Pipeline:
    """One transaction on `connection`, as a cursor: what PEP 249 calls `execute`, `fetchone` and `fetchall`.

    `session` belongs to the connection. After any exception the connection is good for nothing.
    """

    rowcount = -1
    """Nobody knows before the commit."""

    def __init__(self, connection: Connection[Any], session: Session) -> None:
        """Begin the transaction."""
        self._connection = connection
        self._libpq = connection.pgconn
        self._session = session
        session.warnings.clear()
        self._libpq.enter_pipeline_mode()
        # INVARIANT: it says its isolation itself. The default of a role or database may be another, by which a fire
        # would be decided on what stood before the lock was free.
        self._libpq.send_query_params(b"BEGIN ISOLATION LEVEL READ COMMITTED", None)
        self._sent = 1

    def commit(self) -> None:
        """Commit, wait until that is safe, and leave the connection as it was.

        Raises:
            psycopg.Error: a statement failed, or the connection; nothing was committed, or, if that was lost or came
                with a warning, all.

        """
        self._libpq.send_query_params(b"COMMIT", None)
        self._sent += 1
        committed = self._answer()
        if committed.command_status != b"COMMIT":  # it is ROLLBACK where a statement failed before
            raise errors.InFailedSqlTransaction("the transaction was rolled back")
        self._session.require_no_warning()
        self._libpq.exit_pipeline_mode()

    def execute(self, text: str, values: Sequence[object]) -> None:
        """Queue a statement with `%s` for each of `values`."""
        adapted = Transformer(self._connection)
        parameters = adapted.dump_sequence(values, [PyFormat.AUTO] * len(values)) if values else ()
        prepared = self._session.prepared
        name = prepared.get((text, adapted.types))
        if name is None:
            name = prepared[text, adapted.types] = _name(text, adapted.types)
            self._libpq.send_prepare(name, _numbered(text), adapted.types)
            self._sent += 1
        self._libpq.send_query_prepared(name, parameters, adapted.formats, result_format=BINARY)
        self._sent += 1

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the last statement's first row; None if there is none."""
        rows = self.fetchall()
        return rows[0] if rows else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Send what is queued, and return every row of the last statement."""
        answer = self._answer()
        loaded = Transformer(self._connection)
        loaded.set_pgresult(answer)
        return loaded.load_rows(0, answer.ntuples, tuple)

    def _answer(self) -> PGresult:
        """Send what is queued, and return the last statement's result; raise what the first that failed says."""
        self._libpq.pipeline_sync()
        while self._libpq.flush():
            self._wait(select.POLLIN | select.POLLOUT)
        results = [self._result() for _ in range(self._sent)]
        self._next()  # the synchronization's
        self._sent = 0
        for result in results:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise errors.error_from_result(result)
        return results[-1]

    def _result(self) -> PGresult:
        """Return the next statement's result, behind which libpq puts a None."""
        result = self._next()
        if result is None or self._next() is not None:
            raise errors.OperationalError("the connection answers out of turn")
        return result

    def _next(self) -> PGresult | None:
        while self._libpq.is_busy():
            self._wait(select.POLLIN)
        return self._libpq.get_result()

    def _wait(self, events: int) -> None:
        """Wait for the server, without the interpreter's lock; take in what it has sent."""
        poll = select.poll()
        poll.register(self._libpq.socket, events)
        poll.poll()
        self._libpq.consume_input()


def _name(text: str, types: Sequence[int] | None) -> bytes:
    """Return what a statement is prepared as: no other is ever, by no other connection and no other version of us."""
    return b"holdfire_%s" % sha256(f"{types} {text}".encode()).hexdigest()[:32].encode()


def _numbered(text: str) -> bytes:
    """Return the statement with `$1`, `$2`, … for its `%s`, as the server wants it."""
    numbers = count(1)
    return _placeholders.sub(lambda found: "%" if found[0] == "%%" else f"${next(numbers)}", text).encode()
