"""libpq's pipeline, against a real server: answers in order, all or nothing, and prepared once."""

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import make_url

from executor.ledger import session
from executor.ledger.pipeline import Pipeline


@pytest.fixture
def connection(postgres_ledger):
    dsn = make_url(postgres_ledger).set(drivername="postgresql").render_as_string(hide_password=False)
    made = psycopg.connect(dsn)
    made.execute("CREATE TABLE notes (number bigint PRIMARY KEY, content bytea)")
    made.commit()
    yield made
    made.close()


def kept(connection):
    found = connection.execute("SELECT number FROM notes ORDER BY number").fetchall()
    connection.commit()
    return [number for (number,) in found]


def insert(pipeline, number, content=b""):
    pipeline.execute("INSERT INTO notes VALUES (%s, %s)", (number, content))


def test_what_is_sent_is_kept_once_it_is_committed(connection):
    pipeline = Pipeline(connection, session.begin(connection))
    insert(pipeline, 1)
    pipeline.execute("SELECT %s::bigint + 1, '100 %%'", (2**40,))
    assert pipeline.fetchall() == [(2**40 + 1, "100 %")]
    pipeline.execute("SELECT content FROM notes WHERE number = %s", (1,))
    assert pipeline.fetchone() == (b"",)
    pipeline.execute("SELECT content FROM notes WHERE number = %s", (2,))
    assert pipeline.fetchone() is None
    insert(pipeline, 2)
    pipeline.commit()
    assert connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
    assert kept(connection) == [1, 2]


def test_a_statement_that_fails_is_told_and_nothing_is_kept(connection):
    pipeline = Pipeline(connection, session.begin(connection))
    insert(pipeline, 1)
    insert(pipeline, 1)
    insert(pipeline, 2)
    with pytest.raises(errors.UniqueViolation):
        pipeline.commit()


def test_a_failure_that_somebody_swallowed_commits_nothing(connection):
    pipeline = Pipeline(connection, session.begin(connection))
    insert(pipeline, 1)
    pipeline.execute("SELECT 1 / 0", ())
    with pytest.raises(errors.DivisionByZero):
        pipeline.fetchall()
    with pytest.raises(errors.InFailedSqlTransaction):
        pipeline.commit()


def test_a_statement_is_prepared_once_for_each_kind_of_value(connection):
    ours = session.begin(connection)
    for number in range(3):
        pipeline = Pipeline(connection, ours)
        insert(pipeline, number)
        insert(pipeline, 10 + number, None)
        pipeline.commit()
    assert len(ours.prepared) == 2
    pipeline = Pipeline(connection, ours)
    pipeline.execute("SELECT count(*) FROM pg_prepared_statements", ())
    assert pipeline.fetchone() == (3,)
    pipeline.commit()


def test_more_than_the_socket_holds_goes_both_ways(connection):
    """Neither side waits for the other to read first."""
    pipeline = Pipeline(connection, session.begin(connection))
    for number in range(20):
        insert(pipeline, number, bytes(2**20))
        pipeline.execute("SELECT content FROM notes WHERE number = %s", (number,))
    assert pipeline.fetchone() == (bytes(2**20),)
    pipeline.commit()
    assert kept(connection) == list(range(20))


def test_a_server_that_ends_the_connection_is_told(connection):
    pipeline = Pipeline(connection, session.begin(connection))
    insert(pipeline, 1)
    pipeline.execute("SELECT pg_terminate_backend(pg_backend_pid())", ())
    with pytest.raises(psycopg.OperationalError):
        pipeline.fetchall()
    assert connection.closed


def test_a_name_means_one_statement_on_every_connection(connection):
    """Even where a pooler leads another's statements to our server process."""
    names = {}
    for order in (1, -1):
        ours = session.begin(connection)
        for statement in ("SELECT %s::bigint", "SELECT %s::bigint + 1")[::order]:
            pipeline = Pipeline(connection, ours)
            pipeline.execute(statement, (1,))
            pipeline.commit()
        connection.execute("DEALLOCATE ALL")
        connection.commit()
        names[order] = ours.prepared
    assert names[1] == names[-1]
    assert len(set(names[1].values())) == 2


def test_a_commit_that_is_answered_by_a_warning_is_not_taken_for_one(connection):
    connection.execute(
        "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE WARNING 'not there yet'; RETURN NULL; END $$"
    )
    connection.execute(
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        " EXECUTE FUNCTION warn()"
    )
    connection.commit()
    ours = session.begin(connection)
    pipeline = Pipeline(connection, ours)
    insert(pipeline, 1)
    with pytest.raises(errors.OperationalError, match="answered by a warning: not there yet"):
        pipeline.commit()
