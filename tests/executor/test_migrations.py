"""Revisions, on each database: made or upgraded it is the same, and a ledger of another one isn't opened."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from executor.cli import main
from executor.errors import LedgerError
from executor.ledger import Ledger, postgres, sqlite
from executor.ledger.revision import REVISION
from executor.ledger.upgrade import MIGRATIONS, upgrade
from executor.seal import SealKeys
from tests.support import Setup

KEYS = SealKeys.single(b"s" * 32)

TRIGGERS = {
    "sqlite": "SELECT name, sql FROM sqlite_master",
    "postgresql": (
        "SELECT tgname, pg_get_triggerdef(oid), '' FROM pg_trigger WHERE NOT tgisinternal "
        "UNION ALL SELECT proname, prosrc, prorettype::regtype::text FROM pg_proc "
        "WHERE pronamespace = 'public'::regnamespace "
        "UNION ALL SELECT indexname, indexdef, '' FROM pg_indexes WHERE schemaname = 'public' "
        "UNION ALL SELECT conname, pg_get_constraintdef(oid), '' FROM pg_constraint WHERE connamespace = "
        "'public'::regnamespace"
    ),
}


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path):
    """Return a database with nothing in it: a path, or a URL."""
    return tmp_path / "ledger.db" if request.param == "sqlite" else request.getfixturevalue("postgres_ledger")


@pytest.fixture
def elsewhere(request, where, tmp_path):
    """Return another of the same kind."""
    return tmp_path / "other.db" if isinstance(where, Path) else request.getfixturevalue("postgres_url")


def engine_of(where):
    return create_engine(f"sqlite:///{where}" if isinstance(where, Path) else where)


def run(where, *statements):
    """Change the database behind the ledger's back."""
    engine = engine_of(where)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def everything(where):
    """Return all that the database says of its tables, indexes and triggers, and the revision."""
    engine = engine_of(where)
    with engine.connect() as connection:
        asked = inspect(connection)
        tables = {
            name: (
                [{**column, "type": str(column["type"])} for column in asked.get_columns(name)],
                asked.get_pk_constraint(name),
                [
                    {**index, "dialect_options": {key: str(value) for key, value in index["dialect_options"].items()}}
                    for index in sorted(asked.get_indexes(name), key=lambda index: index["name"])
                ],
                asked.get_check_constraints(name),
            )
            for name in sorted(asked.get_table_names())
        }
        words = [" ".join(" ".join(map(str, row)).split()) for row in connection.execute(text(TRIGGERS[engine.name]))]
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).all()
    engine.dispose()
    return tables, sorted(word.replace("IF NOT EXISTS ", "").replace(" ;", ";") for word in words), revision


def test_made_by_opening_it_is_what_an_upgrade_makes(where, elsewhere):
    Ledger.open(where, seal_keys=KEYS).close()
    assert upgrade(elsewhere) == (None, REVISION)
    made, upgraded = everything(where), everything(elsewhere)
    assert made == upgraded
    assert len(made[0]) == 6
    assert len(made[1]) >= 20
    assert made[2] == [(REVISION,)]


def test_a_ledger_of_the_first_revision_is_refused_upgraded_and_as_if_made_anew(where, elsewhere):
    upgrade(where, to="0001")
    run(where, FIRST_ENTRY)
    with pytest.raises(LedgerError, match=f"has revision 0001, but this version needs {REVISION}"):
        Ledger.open(where, seal_keys=KEYS)
    assert upgrade(where) == ("0001", REVISION)
    Ledger.open(elsewhere, seal_keys=KEYS).close()
    assert everything(where) == everything(elsewhere)
    engine = engine_of(where)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT wallet, seq, kind, funding FROM entries")).all() == [
            ("w", 1, "revoked", None)
        ]
    engine.dispose()


FIRST_ENTRY = """
    INSERT INTO entries (wallet, seq, at_ms, kind, content, hash, key_id, mac)
    VALUES ('w', 1, 0, 'revoked', '', '', '1', '')
"""


def test_what_an_upgrade_made_is_a_ledger_once_it_is_opened(where):
    assert upgrade(where) == (None, REVISION)
    with pytest.raises(LedgerError, match="holds no ledger"):
        Ledger.open(where, seal_keys=KEYS, read_only=True)
    setup = Setup(where)
    setup.activate()
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    setup.guard.close()
    before = everything(where)
    assert upgrade(where) == (REVISION, REVISION)
    assert everything(where) == before
    setup.guard = setup.open()
    assert setup.guard.headroom(setup.wallet).executions.used == 1
    setup.guard.close()


def test_the_newest_revision_is_the_one_that_opening_makes():
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


BUT_ONE = ("entries", "heads", "ledger", "session_secrets", "spent")

OTHER = {
    "newer": ["UPDATE alembic_version SET version_num = '9999'"],
    "older": ["UPDATE alembic_version SET version_num = '0000'"],
    "halfway, without a revision": ["DELETE FROM alembic_version"],
    "halfway, without where it stands": ["DROP TABLE alembic_version"],
    "halfway, of two revisions": ["INSERT INTO alembic_version VALUES ('9998')"],
    "halfway, without a table": ["DROP TABLE session_secrets"],
    "halfway, with a table alone": [
        f"DROP TABLE {name}" for name in ("entries", "heads", "ledger", "session_secrets", "spent")
    ],
}


@pytest.mark.parametrize("statements", OTHER.values(), ids=OTHER)
def test_a_ledger_of_another_revision_is_not_opened(where, tmp_path, capsys, statements):
    Ledger.open(where, seal_keys=KEYS).close()
    run(where, *statements)
    for read_only in (False, True):
        with pytest.raises(LedgerError, match="run `executor db upgrade`") as refused:
            Ledger.open(where, seal_keys=KEYS, read_only=read_only)
        assert "\n" not in str(refused.value)
    (tmp_path / "seal.key").write_text((b"s" * 32).hex())
    assert main(["status", "--db", str(where), "--seal-key", str(tmp_path / "seal.key")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("statements", list(OTHER.values())[:5], ids=list(OTHER)[:5])
def test_an_upgrade_that_can_not_be_changes_nothing(where, capsys, statements):
    Ledger.open(where, seal_keys=KEYS).close()
    engine = engine_of(where)
    run(where, *statements)
    tables = set(inspect(engine).get_table_names())
    assert main(["db", "upgrade", str(where)]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert set(inspect(engine).get_table_names()) == tables
    engine.dispose()


def test_a_database_without_a_ledger_is_not_read_as_one(where):
    if isinstance(where, Path):
        where.touch()
    with pytest.raises(LedgerError, match="holds no ledger"):
        Ledger.open(where, seal_keys=KEYS, read_only=True)


def test_a_ledger_is_made_in_one_step(where, monkeypatch):
    module, wrong = (sqlite, ("x", "NOTHING", "x")) if isinstance(where, Path) else (postgres, "CREATE NOTHING")
    with monkeypatch.context() as broken:
        broken.setattr(module, "TRIGGERS", (*module.TRIGGERS, wrong))
        with pytest.raises(LedgerError, match="NOTHING"):
            Ledger.open(where, seal_keys=KEYS)
    engine = engine_of(where)
    assert inspect(engine).get_table_names() == []
    engine.dispose()
    Ledger.open(where, seal_keys=KEYS).close()


def test_the_command_says_what_it_did(where, capsys):
    Ledger.open(where, seal_keys=KEYS).close()
    assert main(["db", "upgrade", str(where)]) == 0
    assert capsys.readouterr().out == f"revision {REVISION}, as it was\n"


def test_the_command_makes_no_file_and_waits_for_nobody(sqlite_setup, tmp_path, capsys):
    assert main(["db", "upgrade", str(tmp_path / "nowhere.db")]) == 2
    assert "there is no ledger" in capsys.readouterr().err
    assert not (tmp_path / "nowhere.db").exists()
    command = "import sys; from executor.cli import main; sys.exit(main())"
    script = [sys.executable, "-c", command, "db", "upgrade", str(sqlite_setup.path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "is in use by process" in done.stderr
    hidden = [sys.executable, "-c", f"import sys; sys.modules['alembic'] = None; {command}", *script[3:]]
    done = subprocess.run(hidden, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "the extra `migrations`" in done.stderr
