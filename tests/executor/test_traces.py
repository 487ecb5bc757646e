"""The golden traces: their files, and the guard's answers to them on each database, with and without restarts."""

import copy
import json
import subprocess
import sys
from collections import Counter

import jsonschema
import pytest

from executor.cli import main
from executor.errors import ExecutorError, LedgerError
from executor.ledger import scratch
from executor.reasons import Reason
from executor.traces import load, replay, traces_folder

FOLDER = traces_folder()
FILES = sorted(path.stem for path in FOLDER.glob("*.json"))
LONG = 100
"""Steps of a trace between all of which a restart takes its time."""


@pytest.fixture(scope="module")
def traces():
    return load(FOLDER)


def differences(traces, url=None, *, restarts=False):
    found = (replay(trace, url, restarts=restarts) for trace in traces)
    return [difference for difference in found if difference is not None]


def of(file, traces):
    return [trace for trace in traces if trace["id"].startswith(f"{file}/")]


@pytest.mark.parametrize("file", FILES)
def test_the_guard_answers_as_it_must(traces, file):
    assert differences(of(file, traces)) == []


@pytest.mark.parametrize("file", FILES)
def test_the_guard_answers_as_it_must_on_postgresql(traces, file, one_database):
    assert differences(of(file, traces), one_database) == []


@pytest.mark.parametrize("file", FILES)
def test_a_restart_changes_no_answer(traces, file):
    assert differences([each for each in of(file, traces) if len(each["steps"]) < LONG], restarts=True) == []


@pytest.mark.campaign
def test_a_restart_changes_no_answer_of_a_long_trace(traces):
    assert differences([each for each in traces if len(each["steps"]) >= LONG], restarts=True) == []


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("file", FILES)
def test_a_restart_changes_no_answer_on_postgresql(traces, file, one_database):
    assert differences(of(file, traces), one_database, restarts=True) == []


def test_there_are_enough_of_them_and_each_reason_has_one(traces):
    assert len(traces) >= 60
    told = Counter(
        reason
        for trace in traces
        for step in trace["steps"]
        for reason in [step["expected"].get("reason"), *step["expected"].get("checks", [])]
    )
    assert set(Reason) - set(told) == {Reason.LEDGER_TAMPERED}  # no call of the guard tampers with its ledger


def test_the_files_are_as_their_schema_says():
    schema = json.loads((FOLDER.parent / "schemas" / "traces.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for file in FILES:
        document = json.loads((FOLDER / f"{file}.json").read_text())
        assert [error.message for error in validator.iter_errors(document)] == []
        assert all(trace["id"].startswith(f"{file}/") for trace in document["traces"])


def test_the_generator_writes_the_same_again(tmp_path):
    generator = FOLDER.parent / "generate_traces.py"
    subprocess.run([sys.executable, generator, tmp_path], check=True, timeout=120, capture_output=True)
    assert sorted(path.stem for path in tmp_path.iterdir()) == FILES
    for file in FILES:
        assert (tmp_path / f"{file}.json").read_bytes() == (FOLDER / f"{file}.json").read_bytes()


def test_the_generator_uses_nothing_of_ours():
    text = (FOLDER.parent / "generate_traces.py").read_text()
    for package in ("permits", "executor"):
        assert f"import {package}" not in text
        assert f"from {package}" not in text


@pytest.fixture
def short(traces):
    """Return a copy of a trace of a few steps, to be changed."""
    return copy.deepcopy(next(trace for trace in traces if trace["id"] == "fires/cap-inclusive"))


def write(folder, *traces):
    (folder / "some.json").write_text(json.dumps({"traces": traces}))
    return str(folder)


def test_the_command_tells_how_many_agree(tmp_path, short, capsys):
    assert main(["traces", "run", write(tmp_path, short)]) == 0
    assert "traces: 1, each with and without restarts, fail: 0" in capsys.readouterr().out


def test_an_answer_that_is_another_fails_and_is_shown(tmp_path, short, capsys):
    short["steps"][-1]["expected"]["reason"] = "PRICE_STALE"
    assert main(["traces", "run", write(tmp_path, short)]) == 1
    shown = capsys.readouterr().out
    assert f"FAILED: fires/cap-inclusive, step {len(short['steps'])}" in shown
    assert "AMOUNT_OVER_CAP" in shown
    assert "with restarts" in shown


@pytest.mark.parametrize(
    "change",
    [
        lambda trace: trace.update(only_if="x"),
        lambda trace: trace["steps"][0].update(only_if="x"),
        lambda trace: trace["steps"][0].update(call="bypass"),
        lambda trace: trace["steps"][0].pop("expected"),
        lambda trace: trace.pop("limits"),
    ],
)
def test_a_trace_that_a_runner_does_not_know_is_refused(tmp_path, short, change):
    change(short)
    write(tmp_path, short)
    with pytest.raises(ExecutorError, match="cap-inclusive"):
        load(tmp_path)


def test_files_without_traces_are_refused(tmp_path, short, capsys):
    assert main(["traces", "run", str(tmp_path)]) == 1
    write(tmp_path, short, short)
    assert main(["traces", "run", str(tmp_path)]) == 1
    (tmp_path / "some.json").write_text("[]")
    assert main(["traces", "run", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 3


@pytest.mark.parametrize("url", ["sqlite:///x.db", "no url", "mysql://x/y", "postgresql://127.0.0.1:1/x"])
def test_only_postgresql_lends_a_place(url):
    with pytest.raises(LedgerError), scratch(url):
        pass


def test_a_place_that_was_lent_is_gone_and_leaves_the_rest_alone(postgres_setup, short):
    before = postgres_setup.guard.ledger.wallets()
    url = postgres_setup.guard.ledger.engine.url.render_as_string(hide_password=False)
    assert replay(short, url) is None
    with postgres_setup.guard.ledger.engine.begin() as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'scratch%%'").scalar()
    assert left == 0
    assert postgres_setup.guard.ledger.wallets() == before
