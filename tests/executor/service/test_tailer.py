"""One tailer a process: each page is read once, hints come early, and the poll finds what they missed."""

import subprocess
import sys
from contextlib import ExitStack

import pytest

from executor.errors import LedgerError
from executor.guard import AsyncGuard
from executor.ledger import Ledger
from executor.service import Settings, create_app, tailer
from tests.executor.service.served import served, stream
from tests.support import Setup, key, uuid

STREAMS = 20


def app_of(setup):
    return create_app(AsyncGuard(setup.guard), Settings(wallet_address_streams=True))


def url_of(address, setup):
    return f"{address}/api/agents/stream?walletAddress={setup.wallet}"


def arm(setup, *conditions):
    for condition in conditions:
        setup.guard.arm_trigger(setup.wallet, uuid(1), condition)


@pytest.fixture
def unhurried(monkeypatch):
    """Poll so seldom that nothing could wait for it."""
    monkeypatch.setattr(tailer, "POLL_S", 3_600)


@pytest.fixture
def readings(monkeypatch):
    read, of_pages = tailer.page_after, []

    def counted(ledger, wallet, after):
        of_pages.append(after.seq)
        return read(ledger, wallet, after)

    monkeypatch.setattr(tailer, "page_after", counted)
    return of_pages


def test_an_entry_is_read_once_for_all_streams_that_are_caught_up(sqlite_setup, readings):
    sqlite_setup.activate()
    with served(app_of(sqlite_setup)) as address, ExitStack() as stack:
        url = url_of(address, sqlite_setup)
        following = [stack.enter_context(stream(url)) for _ in range(STREAMS)]
        assert len({next(each)["id"] for each in following}) == 1
        arm(sqlite_setup, "once")
        assert len({next(each)["id"] for each in following}) == 1
        assert readings.count(2) == 1


@pytest.mark.usefixtures("unhurried")
def test_a_commit_of_this_process_is_told_without_a_poll(setup):
    setup.activate()
    with served(app_of(setup)) as address, stream(url_of(address, setup)) as following:
        next(following)
        arm(setup, "now")
        assert "now" in next(following)["data"]


@pytest.mark.usefixtures("unhurried")
def test_a_commit_of_another_process_is_told_without_a_poll(postgres_setup):
    postgres_setup.activate()
    script = (
        "import sys; from tests.support import Setup, uuid\n"
        "setup = Setup(sys.argv[1])\n"
        "for line in sys.stdin: setup.guard.arm_trigger(setup.wallet, uuid(1), line.strip())\n"
        "setup.guard.close()\n"
    )
    with (
        subprocess.Popen(
            [sys.executable, "-c", script, str(postgres_setup.path)], stdin=subprocess.PIPE, text=True
        ) as other,
        served(app_of(postgres_setup)) as address,
        stream(url_of(address, postgres_setup)) as following,
    ):
        next(following)
        arm(postgres_setup, "here")  # its arrival says that the tailer runs; the listener may still be on its way
        assert "here" in next(following)["data"]
        listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' AND datname = current_database()"
        with postgres_setup.guard.ledger.engine.connect() as connection:
            while not connection.exec_driver_sql(listening).scalar():
                connection.rollback()
        other.stdin.write("there\n")
        other.stdin.close()
        assert "there" in next(following)["data"]
        assert other.wait(60) == 0


def test_the_poll_finds_what_no_hint_told(setup, monkeypatch):
    monkeypatch.setattr(Ledger, "_hint", lambda _ledger, _wallets: None)
    setup.activate()
    with served(app_of(setup)) as address, stream(url_of(address, setup)) as following:
        next(following)
        arm(setup, "found")
        assert "found" in next(following)["data"]


def test_two_replicas_serve_one_wallet_with_the_same_ids(postgres_setup):
    """Whichever a client comes back to, it misses and repeats nothing."""
    postgres_setup.activate()
    other = Setup(postgres_setup.path)
    with served(app_of(postgres_setup)) as here, served(app_of(other)) as there:
        with stream(url_of(here, postgres_setup)) as one, stream(url_of(there, other)) as another:
            assert next(one) == next(another)
            for number in range(6):
                arm((postgres_setup, other)[number % 2], str(number))
            told = [next(one) for _ in range(6)]
            assert [next(another) for _ in range(6)] == told
        for place, last in enumerate(told[:-1]):
            address = (here, there)[place % 2]
            with stream(url_of(address, other), {"Last-Event-ID": last["id"]}) as again:
                next(again)
                assert [next(again) for _ in told[place + 1 :]] == told[place + 1 :]
    other.guard.close()


def test_a_listener_that_raises_makes_no_commit_fail(setup):
    def raises(_wallets):
        raise RuntimeError("broken")

    with setup.guard.ledger.hinting(raises):
        setup.activate()
    assert setup.guard.agent(setup.wallet, uuid(1)) is not None


def test_a_database_that_is_away_for_a_moment_ends_no_stream(sqlite_setup, monkeypatch):
    head_seqs, failures = Ledger.head_seqs, [LedgerError("the disk is gone")] * 2

    def failing(ledger, wallets):
        if failures:
            raise failures.pop()
        return head_seqs(ledger, wallets)

    monkeypatch.setattr(Ledger, "_hint", lambda _ledger, _wallets: None)
    monkeypatch.setattr(Ledger, "head_seqs", failing)
    sqlite_setup.activate()
    with served(app_of(sqlite_setup)) as address, stream(url_of(address, sqlite_setup)) as following:
        next(following)
        arm(sqlite_setup, "after all")
        assert "after all" in next(following)["data"]
        assert not failures


def test_no_heartbeat_says_that_nothing_was_missed_when_nobody_knows(sqlite_setup, monkeypatch):
    monkeypatch.setattr("executor.service.stream.HEARTBEAT_S", 0.5)
    monkeypatch.setattr("executor.service.stream.LEDGER_UNSEEN_S_MAX", 0.3)

    def failing(_ledger, _wallets):
        raise LedgerError("the disk is gone")

    monkeypatch.setattr(Ledger, "head_seqs", failing)
    sqlite_setup.activate()
    with served(app_of(sqlite_setup)) as address, stream(url_of(address, sqlite_setup)) as following:
        next(following)
        assert list(following) == []


def test_a_wallet_that_was_tampered_with_ends_its_own_streams_alone(sqlite_setup):
    sqlite_setup.activate()
    other = Setup.__new__(Setup)
    other.__dict__ = {**sqlite_setup.__dict__, "signer": key(50), "wallet": key(50).wallet_address}
    other.activate()
    with (
        served(app_of(sqlite_setup)) as address,
        stream(url_of(address, sqlite_setup)) as its,
        stream(url_of(address, other)) as others,
    ):
        next(its)
        next(others)
        with sqlite_setup.guard.ledger.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE heads SET seq = 99 WHERE wallet = ?", (sqlite_setup.wallet,))
        assert list(its) == []
        arm(other, "still told")
        assert "still told" in next(others)["data"]
        with stream(url_of(address, sqlite_setup)) as again:
            assert list(again) == []
