"""The price source is somebody else's code: it runs under no lock, and what it does wrong harms its own fire only."""

import logging
import threading
import time
from itertools import repeat

import pytest

from executor.audit import check_ledger
from executor.errors import IllegalTransition
from executor.guard import prefetch
from executor.guard.prefetch import ASKED_S_MAX, QUOTES_MAX, SOURCE_CHARS_MAX, Prefetch
from executor.prices.quote import Quote
from executor.reasons import Reason
from tests.support import BONK, JTO, USDC, Setup, key, until, uuid

ASSETS = ("USDC", "JTO", "BONK")


class Source:
    """The prices of a setup, but for one mint what a test says."""

    def __init__(self, setup, answer, mint=BONK.mint):
        self._prices = setup.prices
        self._answer = answer
        self._mint = mint
        self.asked = []

    def quotes(self, mint):
        self.asked.append(mint)
        return self._answer() if mint == self._mint else self._prices.quotes(mint)


def use(setup, answer, mint=BONK.mint):
    """Open the ledger again, with a source that answers so for `mint`."""
    setup.prices = Source(setup, answer, mint)
    setup.reopen()
    return setup.prices


def outcome(decision):
    return getattr(decision, "reason", None) or decision.outcome


def bonk(**fields):
    return Quote(**{
        "mint": BONK.mint, "price_pico_usd": 10**7, "at_ms": 0, "max_age_ms": 2**52, "source": "test", **fields
    })  # fmt: skip


class Loose(Quote):
    def is_fresh(self, *_):
        return True


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError


def raises(fault):
    def answer():
        raise fault

    return answer


def breaks_off():
    yield bonk()
    raise OSError("gone")


NONSENSE = {
    "stops": raises(StopIteration()),
    "raises": raises(OSError("the source is gone")),
    "raises what can't be told": raises(Unspeakable()),
    "a step that isn't allowed": raises(IllegalTransition("of another's")),
    "nothing": lambda: None,
    "a number": lambda: 7,
    "breaks off": breaks_off,
    "no quotes": lambda: ["1.50", None],
    "a text": lambda: "1.50",
    "another mint": lambda: [bonk(), bonk(mint=JTO.mint)],
    "a subclass": lambda: [Loose(**bonk().model_dump())],
    "too many": lambda: [bonk(source=str(number)) for number in range(QUOTES_MAX + 1)],
    "no end": lambda: repeat(bonk()),
    "5,000 digits of age": lambda: [bonk(max_age_ms=10**5_000)],
    "5,000 digits of time": lambda: [bonk(at_ms=-(10**5_000))],
    "half of a pair": lambda: [bonk(source="\ud800")],
    "a long name": lambda: [bonk(source="x" * (SOURCE_CHARS_MAX + 1))],
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_what_the_source_does_wrong_refuses_its_own_fire_and_no_other(setup, answer):
    setup.activate(assets=ASSETS)
    use(setup, answer)
    sells = setup.request(2, sell="BONK")
    assert outcome(setup.guard.explain(sells)) is Reason.PRICE_MISSING
    answers = setup.guard.authorize_many([setup.request(1), sells, setup.request(3)])
    assert [outcome(each) for each in answers] == ["allowed", Reason.PRICE_MISSING, "allowed"]
    assert outcome(setup.guard.authorize(setup.request(4, sell="BONK"))) is Reason.PRICE_MISSING
    assert outcome(setup.guard.authorize(setup.request(5))) == "allowed"
    assert check_ledger(setup.guard.ledger).findings == ()


def test_as_many_quotes_as_are_allowed_are_kept(setup):
    setup.activate(assets=ASSETS)
    use(setup, lambda: [bonk(at_ms=setup.now_ms, source="x" * SOURCE_CHARS_MAX)] * QUOTES_MAX)
    request = setup.request(1, sell="BONK")
    setup.guard.authorize(request)
    quotes = setup.guard.execution(setup.wallet, request.execution_id).evidence.quotes
    assert sum(quote.mint == BONK.mint for quote in quotes) == QUOTES_MAX


def test_a_fault_is_logged_in_one_line_until_the_source_answers_again(sqlite_setup, caplog):
    setup, faults = sqlite_setup, [True]
    setup.activate(assets=ASSETS)
    use(setup, lambda: raises(OSError("the source\nis gone"))() if faults[0] else ())
    with caplog.at_level(logging.WARNING, "executor.guard"):
        for faulty in (True, True, False, True):
            faults[0] = faulty
            setup.guard.explain(setup.request(1, sell="BONK"))
    told = f"the price source failed for `{BONK.mint}`, of which nothing fires now: the source is gone"
    assert [(record.getMessage(), record.exc_info) for record in caplog.records] == [(told, None)] * 2


def test_an_interrupt_during_the_question_interrupts_and_changes_nothing(setup):
    setup.activate(assets=ASSETS)
    use(setup, raises(KeyboardInterrupt()))
    for fire in (setup.guard.authorize, setup.guard.explain, lambda request: setup.guard.authorize_many([request])):
        with pytest.raises(KeyboardInterrupt):
            fire(setup.request(1, sell="BONK"))
    assert setup.guard.headroom(setup.wallet).executions.used == 0
    assert outcome(setup.guard.authorize(setup.request(2))) == "allowed"


@pytest.mark.parametrize("many", [False, True])
def test_a_source_may_call_the_guard_itself(setup, many):
    other = Setup.__new__(Setup)
    other.__dict__ = {**setup.__dict__, "signer": key(77), "wallet": key(77).wallet_address}
    setup.activate()
    other.activate(7)
    answers = []

    def answer():
        setup.guard.headroom(setup.wallet)
        if not answers:
            answers.append("asked")
            answers.append(outcome(setup.guard.authorize(other.request(1, agent=7))))
        return [Quote.of(JTO.mint, "2.50", at_ms=setup.now_ms, max_age_ms=1000, source="test")]

    use(setup, answer, JTO.mint)
    decided = []

    def fire():
        request = setup.request(1)
        decided.extend(setup.guard.authorize_many([request]) if many else [setup.guard.authorize(request)])

    firing = threading.Thread(target=fire, daemon=True)
    firing.start()
    firing.join(20)
    assert [outcome(each) for each in decided] == ["allowed"]
    assert answers == ["asked", "allowed"]


def test_a_source_that_calls_for_its_own_fire_ends(sqlite_setup):
    setup = sqlite_setup
    setup.activate(assets=ASSETS)
    request = setup.request(1, sell="BONK")
    use(setup, lambda: setup.guard.explain(request) and None)
    assert outcome(setup.guard.authorize(request)) is Reason.PRICE_MISSING


def test_a_slow_source_holds_up_nobody_elses_fire(sqlite_setup):
    """One wallet's mint takes 0.3 s; 63 others fire meanwhile, and are done before it has been answered for."""
    setup = sqlite_setup
    users = []
    for number in range(64):
        user = Setup.__new__(Setup)
        user.__dict__ = {**setup.__dict__, "signer": key(900 + number), "wallet": key(900 + number).wallet_address}
        user.activate(900 + number, assets=ASSETS)
        users.append(user)
    asked, others_done = threading.Event(), threading.Event()
    waited = []

    def answer():
        asked.set()
        waited.append(others_done.wait(20))  # and no less than 0.3 s, if they are done sooner
        time.sleep(0.3)
        return [bonk(at_ms=setup.now_ms)]

    use(setup, answer)
    for user in users:
        user.guard = setup.guard
    outcomes = {}

    def fire(number):
        request = users[number].request(1, agent=900 + number, **({} if number else {"sell": "BONK"}))
        outcomes[number] = outcome(setup.guard.authorize(request))

    threads = [threading.Thread(target=fire, args=(number,), daemon=True) for number in range(64)]
    threads[0].start()
    assert asked.wait(20)
    for thread in threads[1:]:
        thread.start()
    for thread in threads[1:]:
        thread.join(20)
    assert outcomes == dict.fromkeys(range(1, 64), "allowed")
    others_done.set()
    threads[0].join(20)
    assert all(waited)
    assert 0 in outcomes


class Clock:
    """A monotonic clock that only a test moves."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def slow(sqlite_setup):
    """Give a setup whose source takes as many seconds for BONK, one after the other, as the test lists."""
    setup, clock, takes = sqlite_setup, Clock(), []
    setup.quote(BONK, "0.00001")
    setup.activate(assets=ASSETS)
    quoted = setup.prices.quotes(BONK.mint)

    def answer():
        clock.now_s += takes.pop(0) if takes else 0
        return quoted

    source = Source(setup, answer)
    setup.guard._prefetch = Prefetch(source, clock)
    setup.guard.explain(setup.request(99))
    source.asked.clear()
    return setup, clock, takes, source


@pytest.mark.parametrize(
    ("takes_s", "expected", "asks"),
    [
        ([ASKED_S_MAX], "allowed", 1),
        ([ASKED_S_MAX + 0.1], "allowed", 2),
        ([ASKED_S_MAX + 0.1] * 2, Reason.PRICE_MISSING, 2),
    ],
)
def test_a_source_that_took_too_long_is_asked_once_more(slow, takes_s, expected, asks):
    setup, _clock, takes, source = slow
    request = setup.request(1, sell="BONK", sell_amount=10_000_000)
    for fire in (setup.guard.explain, lambda each: setup.guard.authorize_many([each])[0]):
        takes[:] = takes_s
        assert outcome(fire(request)) == expected
        assert source.asked.count(BONK.mint) == asks
        source.asked.clear()


def test_what_waited_for_its_turn_for_too_long_is_asked_for_again(slow):
    setup, clock, _takes, source = slow
    entered, go_on = threading.Event(), threading.Event()

    def hold(_transaction):
        entered.set()
        go_on.wait(30)

    holding = threading.Thread(target=setup.guard.ledger.change, args=(setup.wallet, hold))
    holding.start()
    assert entered.wait(30)
    outcomes = []
    firing = threading.Thread(target=lambda: outcomes.append(outcome(setup.guard.authorize(setup.request(1)))))
    firing.start()
    until(lambda: len(setup.guard.ledger._turns) == 1)
    clock.now_s += ASKED_S_MAX + 0.1
    go_on.set()
    for each in (holding, firing):
        each.join(30)
    assert outcomes == ["allowed"]
    assert source.asked.count(USDC.mint) == 2


def test_one_mints_slowness_spoils_no_other_fire_of_the_many(slow):
    setup, _clock, takes, _source = slow
    takes[:] = [5.0, 5.0]
    asked = [setup.request(number, **({"sell": "BONK"} if number == 3 else {})) for number in range(6)]
    answers = [outcome(each) for each in setup.guard.authorize_many(asked)]
    assert answers == [Reason.PRICE_MISSING if number == 3 else "allowed" for number in range(6)]


def test_many_ask_for_each_mint_once_for_as_many_as_are_decided_together(slow, monkeypatch):
    setup, _clock, _takes, source = slow
    monkeypatch.setattr(prefetch, "TOGETHER_MAX", 20)
    answers = setup.guard.authorize_many([setup.request(number) for number in range(50)])
    assert [each.authorization.attempt for each in answers] == list(range(1, 51))
    assert len(source.asked) == 3 * len(set(source.asked)) == 9


def test_signing_asks_anew_and_under_no_lock(setup):
    setup.activate(assets=ASSETS)
    authorization = setup.guard.authorize(setup.request(1)).authorization
    free = []

    def answer():
        looking = threading.Thread(target=lambda: free.append(setup.guard.void_expired(setup.wallet, uuid(10_001))))
        looking.start()
        looking.join(5)
        return ()

    use(setup, answer, JTO.mint)
    refused = setup.guard.mark_signed(
        authorization, tx_signature="signature", transaction_bytes=b"", last_valid_block_height=1
    )
    assert outcome(refused) is Reason.PRICE_MISSING
    assert free == [False]


@pytest.mark.parametrize("changes", [1, 2])
def test_a_permit_that_came_meanwhile_is_asked_for_once_more(setup, changes):
    """While the source is asked, a newer permit changes what the names stand for."""
    setup.activate(assets=ASSETS)
    setup.guard.authorize(setup.request(9, sell="BONK"))
    left = [changes]
    ours = {}

    class Registry:
        def resolve(self, name):
            known = {"USDC": USDC, "JTO": JTO, "BONK": BONK}[name]
            return known.model_copy(update={"mint": ours[name]}) if name in ours else known

    setup.guard._assets = Registry()

    class Renewing:
        def quotes(self, mint):
            if left[0] and mint == USDC.mint:  # the first of each asking
                left[0] -= 1
                ours["JTO"] = key(5_000 + left[0]).wallet_address
                setup.guard.stop(setup.wallet, uuid(1))
                setup.now_ms += 1_000
                setup.activate(assets=ASSETS)
            price = "1" if mint == USDC.mint else "2.50"
            return [Quote.of(mint, price, at_ms=setup.now_ms, max_age_ms=10**6, source="test")]

    setup.guard._prefetch._source = Renewing()
    request = setup.request(1)
    assert outcome(setup.guard.authorize(request)) == ("allowed" if changes == 1 else Reason.PRICE_MISSING)
    evidence = setup.guard.execution(setup.wallet, request.execution_id).evidence
    if changes == 1:
        assert ours["JTO"] in {quote.mint for quote in evidence.quotes}
    assert check_ledger(setup.guard.ledger).findings == ()


def test_only_so_many_agents_are_remembered(sqlite_setup, monkeypatch):
    monkeypatch.setattr(prefetch, "AGENTS_MAX", 2)
    for agent in (1, 2, 3):
        sqlite_setup.activate(agent)
    held = sqlite_setup.guard._prefetch._mints
    assert [agent for _wallet, agent in held] == [uuid(2), uuid(3)]
    assert outcome(sqlite_setup.guard.authorize(sqlite_setup.request(1, agent=1))) == "allowed"
    assert [agent for _wallet, agent in held] == [uuid(3), uuid(1)]


def test_the_registry_is_asked_under_no_lock(sqlite_setup):
    setup = sqlite_setup
    setup.activate()
    known = setup.guard._assets

    class Calling:
        def resolve(self, name):
            if name == "JTO":
                setup.guard.stop(setup.wallet, uuid(1))
            return known.resolve(name)

    setup.guard._assets = Calling()
    done = []
    activating = threading.Thread(target=lambda: done.append(setup.activate(2)), daemon=True)
    activating.start()
    activating.join(20)
    assert len(done) == 1
