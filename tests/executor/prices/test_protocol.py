"""The price stream's protocol: frames, and the two ends against each other."""

from collections import deque
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.prices import protocol
from executor.prices.protocol import (
    HEARTBEAT_MS,
    HELLO_MS_MAX,
    QUIET_MS_MAX,
    TIERS,
    Bar,
    ClientSession,
    ClientState,
    CloseCode,
    ErrorCode,
    Failure,
    FrameError,
    Hello,
    Ping,
    Pong,
    ServerSession,
    Step,
    Subscribe,
    Tick,
    Tier,
    Unsubscribe,
    decode_from_client,
    decode_from_server,
)

SPACED = {  # as the source shows them, and what they are
    '{ "type": "subscribe", "assets": ["SOL", "BTC"] }': Subscribe(("SOL", "BTC")),
    '{ "type": "unsubscribe", "assets": ["BTC"] }': Unsubscribe(("BTC",)),
    '{ "type": "pong" }': Pong(),
    '{ "type": "hello", "tier": "pro", "limits": { "maxAssets": 100, "maxConnections": 5 } }': Hello("pro", 100, 5),
    '{ "type": "price", "data": { "symbol": "SOL", "priceUsd": 178.41, "ts": 1746144000000, "source": "pyth", '
    '"stale": false } }': Tick("SOL", Decimal("178.41"), 1746144000000, "pyth", stale=False),
    '{ "type": "bar_update", "data": { "symbol": "SOL", "interval": "1m", "open": 178.20, "high": 178.51, '
    '"low": 178.05, "close": 178.41, "volume": 12340.5, "ts": 1746144000000 } }': Bar(
        "SOL",
        "1m",
        Decimal("178.20"),
        Decimal("178.51"),
        Decimal("178.05"),
        Decimal("178.41"),
        Decimal("12340.5"),
        1746144000000,
    ),
    '{ "type": "ping", "ts": 1746144030000 }': Ping(1746144030000),
    '{ "type": "error", "code": "symbol_limit", "message": "Tier cap reached" }': Failure(
        "symbol_limit", "Tier cap reached"
    ),
}
TICK = '{"type":"price","data":{"symbol":"SOL","priceUsd":1.5,"ts":1,"source":"pyth","stale":false}}'


def decode(text):
    try:
        return decode_from_client(text)
    except FrameError:
        return decode_from_server(text)


@pytest.mark.parametrize(("text", "frame"), SPACED.items())
def test_frames_are_those_of_the_source_member_by_member_and_digit_by_digit(text, frame):
    assert decode(text) == frame
    assert frame.encode() == "".join(text.split()).replace("Tiercapreached", "Tier cap reached")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_json"),
        ("[]", "bad_json"),
        ("{}", "bad_json"),
        ('{"type":7}', "bad_json"),
        ('{"type":"pong"', "bad_json"),
        ('{"type":"pong","type":"pong"}', "bad_json"),
        ('{"type":"pong","ts":1}', "bad_json"),
        ('{"type":"subscribe"}', "bad_json"),
        ('{"type":"subscribe","assets":"SOL"}', "bad_json"),
        ('{"type":"subscribe","assets":["SOL",1]}', "bad_json"),
        ('{"type":"subscribe","assets":["S L"]}', "bad_json"),
        ('{"type":"subscribe","assets":["SOL\\n"]}', "bad_json"),
        ('{"type":"subscribe","assets":[""]}', "bad_json"),
        (f'{{"type":"subscribe","assets":["{"S" * 45}"]}}', "bad_json"),
        ('{"type":"subscribe","assets":["SOL"],"assets ":[]}', "bad_json"),
        ('{"type":"pong"}' + " " * 16_384, "bad_json"),
        (b'{"type":"\xff"}', "bad_json"),
        ('{"type":"\ud800"}', "bad_json"),
        ('{"type":"hello"}', "unknown_type"),
        ('{"type":"Pong"}', "unknown_type"),
    ],
)
def test_what_no_client_may_send_is_refused_by_its_code(text, code):
    with pytest.raises(FrameError) as refused:
        decode_from_client(text)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("1.5", "0"),
        ("1.5", "-1.5"),
        ("1.5", "1.5e3"),
        ("1.5", '"1.5"'),
        ("1.5", "true"),
        ("1.5", "NaN"),
        ('"SOL"', '"S L"'),
        ('"ts":1,', '"ts":1.0,'),
        ('"ts":1,', '"ts":-1,'),
        ('"ts":1,', '"ts":true,'),
        ('"ts":1,', '"ts":9007199254740992,'),
        ("false", "null"),
        ("false", "0"),
        ('"pyth"', '""'),
        (',"stale":false', ""),
    ],
)
def test_a_price_that_says_anything_odd_is_no_price(before, after):
    assert decode_from_server(TICK)
    with pytest.raises(FrameError):
        decode_from_server(TICK.replace(before, after))


def test_what_a_later_server_adds_is_passed_over():
    assert decode_from_server('{"type":"news","text":"hi"}') is None
    assert decode_from_server(TICK.replace('"stale"', '"confidence":2,"stale"')) == decode_from_server(TICK)


@pytest.mark.parametrize(
    "fields",
    [
        {"price_usd": Decimal(0)},
        {"price_usd": Decimal(-1)},
        {"price_usd": Decimal("NaN")},
        {"price_usd": Decimal("Infinity")},
        {"price_usd": Decimal("1E+1000000")},
        {"price_usd": Decimal("1E-1000000")},
        {"price_usd": Decimal("1." + "1" * 40)},
        {"symbol": 'S","x":"'},
        {"source": 'p"'},
        {"ts_ms": -1},
    ],
)
def test_what_no_client_would_read_is_never_written(fields):
    with pytest.raises(ValueError, match="of a price stream"):
        decode_from_server(TICK)._replace(**fields).encode()


numbers = st.decimals(min_value="0.00000001", max_value=10**12, allow_nan=False, places=8)
symbols = st.from_regex(r"[A-Za-z0-9]{1,44}", fullmatch=True)
times = st.integers(0, 2**53 - 1)


@given(st.builds(Tick, symbols, numbers, times, st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True), st.booleans()))
def test_a_tick_reads_back_as_it_was_written_digit_for_digit(tick):
    back = decode_from_server(tick.encode())
    assert back == tick
    assert f"{back.price_usd:f}" == f"{tick.price_usd:f}"


@given(st.text() | st.binary(max_size=300))
def test_garbage_is_a_frame_or_an_error_at_both_ends(data):
    for read in (decode_from_client, decode_from_server):
        try:
            read(data)
        except FrameError as error:
            assert error.code in ErrorCode


# The server's end.


def server(assets_max=3, **other):
    return ServerSession(Tier("free", 1, assets_max), now_ms=0, **other)


def test_a_subscription_over_the_cap_changes_nothing_and_closes_with_the_reason():
    session = server(3)
    session.receive(Subscribe(("A", "B")).encode(), 0)
    assert session.receive(Subscribe(("B", "C")).encode(), 0).added == {"C"}
    step = session.receive(Subscribe(("C", "D")).encode(), 0)
    assert step.send == ('{"type":"error","code":"symbol_limit","message":"Tier cap reached"}',)
    assert step.close == CloseCode.SYMBOL_LIMIT
    assert (step.added, step.removed) == (frozenset(), {"A", "B", "C"})
    assert session.receive(Subscribe(("A",)).encode(), 0) == Step()


@pytest.mark.parametrize(
    ("message", "code", "close"),
    [("{", "bad_json", CloseCode.BAD_JSON), ('{"type":"x"}', "unknown_type", CloseCode.UNKNOWN_TYPE)],
)
def test_an_error_is_told_before_the_close(message, code, close):
    step = server().receive(message, 0)
    assert decode_from_server(step.send[0]).code == code
    assert step.close == close


def test_a_missed_pong_closes_at_the_next_ping():
    session = server()
    assert session.heartbeat(30_000).send == ('{"type":"ping","ts":30000}',)
    session.receive('{"type":"pong"}', 31_000)
    assert session.heartbeat(60_000).send
    session.receive(Subscribe(("A",)).encode(), 61_000)  # alive, but it owes a pong
    assert session.heartbeat(90_000).close == CloseCode.MISSED_PONG
    assert session.heartbeat(120_000) == Step()


@pytest.mark.parametrize(("now_ms", "close"), [(59_999, None), (60_000, CloseCode.TOKEN_EXPIRED)])
def test_an_expired_token_closes_at_the_heartbeat(now_ms, close):
    assert server(expires_at_ms=60_000).heartbeat(now_ms).close == close


def test_messages_are_bounded_in_rate():
    session = server()
    closes = [session.receive('{"type":"pong"}', 0).close for _ in range(101)]
    assert closes == [None] * 100 + [CloseCode.TOO_FAST]
    patient = server()
    assert all(patient.receive('{"type":"pong"}', 100 * at).close is None for at in range(1_000))


def test_churn_is_bounded_by_the_tiers_cap():
    session = server(3)
    frames = [Subscribe(("A", "B", "C")).encode(), Unsubscribe(("A", "B", "C")).encode()] * 3
    assert [session.receive(each, 0).close for each in frames[:5]] == [None] * 4 + [CloseCode.TOO_FAST]


def test_a_clock_that_is_set_back_gives_nothing_away():
    session = server()
    for _ in range(100):
        session.receive('{"type":"pong"}', 10**9)
    assert session.receive('{"type":"pong"}', 0).close == CloseCode.TOO_FAST


# The client's end.


def greeted(wanted=(), assets_max=3):
    session = ClientSession(wanted)
    session.connected(0)
    session.receive(Hello("free", assets_max, 1).encode(), 0)
    return session


def test_what_is_wanted_is_asked_for_after_the_hello_and_anew_on_each_connection():
    session = ClientSession(["A", "B"])
    assert session.due(0) == Step()
    session.connected(0)
    assert session.due(0) == Step()
    session.receive(Hello("free", 3, 1).encode(), 0)
    assert session.due(0).send == (Subscribe(("A", "B")).encode(),)
    assert session.due(0) == Step()
    session.disconnected()
    session.want(["B", "C"])
    session.connected(1)
    session.receive(Hello("free", 3, 1).encode(), 1)
    assert session.due(1).send == (Subscribe(("B", "C")).encode(),)


def test_what_does_not_fit_is_left_out_and_said():
    session = greeted(["A", "B", "C", "D"])
    assert session.due(0).send == (Subscribe(("A", "B", "C")).encode(),)
    assert session.left_out == ("D",)
    session.want(["D", "B"])
    assert session.due(0).send == (Unsubscribe(("A", "C")).encode(), Subscribe(("D",)).encode())
    assert session.left_out == ()


def test_a_bad_symbol_is_not_wanted_and_nothing_changes():
    session = greeted(["A"])
    with pytest.raises(ValueError, match="no symbol"):
        session.want(["B", "C D"])
    assert session.wanted == ("A",)


def test_a_price_still_under_way_when_it_was_unsubscribed_is_not_told():
    session = greeted(["SOL"])
    assert session.receive(TICK, 0)[0] == decode_from_server(TICK)
    session.want([])
    assert session.receive(TICK, 0) == (None, Step())


def test_a_ping_is_answered():
    assert greeted().receive(Ping(1).encode(), 1) == (None, Step(('{"type":"pong"}',)))


def test_a_silent_server_is_left():
    session = greeted()
    assert session.next_at_ms == QUIET_MS_MAX + 1
    assert session.due(QUIET_MS_MAX) == Step()
    assert session.due(QUIET_MS_MAX + 1).close == CloseCode.QUIET
    assert session.state is ClientState.CLOSED
    session.connected(0)
    assert session.due(HELLO_MS_MAX + 1).close == CloseCode.QUIET


@pytest.mark.parametrize("message", [TICK, Ping(1).encode(), "{", '{"type":"news"}'])
def test_nothing_but_an_error_comes_before_the_hello(message):
    session = ClientSession()
    session.connected(0)
    assert session.receive(message, 0) == (None, Step(close=CloseCode.BROKEN))


def test_an_error_instead_of_the_hello_is_told():
    session = ClientSession()
    session.connected(0)
    assert session.receive(Failure("symbol_limit", "Tier cap reached").encode(), 0)[0].code == "symbol_limit"


def test_a_second_hello_is_a_broken_server():
    assert greeted().receive(Hello("free", 3, 1).encode(), 0)[1].close == CloseCode.BROKEN


def test_a_client_that_is_closed_takes_nothing():
    assert ClientSession().receive(TICK, 0) == (None, Step())


# The two against each other.

few = st.lists(st.sampled_from("ABCDEFGH"), max_size=8)
acts = st.one_of(
    st.tuples(st.just("want"), few),
    st.tuples(st.just("wait"), st.integers(1, 20_000)),
    st.tuples(st.just("deliver"), st.integers(1, 5)),
    st.tuples(st.just("reconnect"), st.none()),
    st.tuples(st.just("heartbeat"), st.none()),
    st.tuples(st.just("garbage to server"), st.text(max_size=20) | st.sampled_from(["{}", '{"type":"pong"}', TICK])),
    st.tuples(st.just("garbage to client"), st.text(max_size=20) | st.sampled_from(["{}", '{"type":"news"}', TICK])),
    st.tuples(st.just("cut message"), st.integers(0, 30)),
)


class Pair:
    """A client and a server, and what is under way between them, each way in order."""

    def __init__(self, assets_max):
        self.now_ms = 0
        self.tier = Tier("free", 1, assets_max)
        self.client = ClientSession()
        self.polite = True
        self.connect()

    def connect(self):
        self.to_client, self.to_server = deque(), deque()
        self.server = ServerSession(self.tier, now_ms=self.now_ms)
        self.client.connected(self.now_ms)
        self.mirror = set()
        self.from_server(self.server.greeting())

    def from_server(self, step):
        self.mirror = (self.mirror - step.removed) | step.added
        self.to_client.extend(step.send)
        if step.close is not None:
            self.to_client.append(None)

    def from_client(self, step):
        self.to_server.extend(step.send)
        if step.close is not None:
            self.to_server.append(None)

    def deliver(self, count):
        for _ in range(count):
            if self.to_server:
                message = self.to_server.popleft()
                if message is None:
                    self.mirror -= self.server.end()
                else:
                    self.from_server(self.server.receive(message, self.now_ms))
            if self.to_client:
                message = self.to_client.popleft()
                if message is None:
                    self.client.disconnected()
                else:
                    self.from_client(self.client.receive(message, self.now_ms)[1])
            self.from_client(self.client.due(self.now_ms))

    def act(self, act, value):
        match act:
            case "want":
                self.client.want(value)
                self.from_client(self.client.due(self.now_ms))
            case "wait":
                self.now_ms += value
            case "deliver":
                self.deliver(value)
            case "reconnect":
                self.connect()
            case "heartbeat":
                self.from_server(self.server.heartbeat(self.now_ms))
            case "garbage to server":
                self.to_server.append(value)
            case "garbage to client":
                self.to_client.append(value)
            case "cut message" if self.to_server and self.to_server[-1] is not None:
                whole = self.to_server.pop()
                self.to_server.extend((whole[:value], whole[value:]))

    def wait_until_all_is_told(self):
        for _ in range(100):
            if self.client.subscribed == set(self.client.wanted[: self.tier.assets_max]):
                break
            self.now_ms += 1_000
            self.from_client(self.client.receive(Ping(0).encode(), self.now_ms)[1])
            self.settle()

    def settle(self):
        while self.to_client or self.to_server:
            self.deliver(1)
        self.deliver(1)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6), st.lists(acts, max_size=40))
def test_whatever_is_said_both_ends_stand_defined_and_agree_on_what_is_subscribed(assets_max, script):
    pair = Pair(assets_max)
    for act, value in script:
        pair.act(act, value)
        assert len(pair.server.subscribed) <= assets_max
        assert pair.mirror == pair.server.subscribed
        assert len(pair.client.subscribed) <= assets_max
    pair.settle()
    assert pair.server.is_closed or pair.client.state is not ClientState.GREETING
    if pair.server.is_closed or pair.client.state is not ClientState.OPEN:
        return
    assert pair.client.subscribed == pair.server.subscribed
    pair.wait_until_all_is_told()
    assert pair.client.subscribed == pair.server.subscribed == set(pair.client.wanted[:assets_max])
    assert not pair.server.is_closed


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 20_000), st.lists(st.integers(0, 3_000), min_size=5, max_size=60), st.randoms())
def test_a_client_that_changes_its_mind_all_the_time_is_never_too_fast(delay_ms, waits, chance):
    """However its frames are held up on the way and then come all at once, it stays within what the server allows."""
    tier = TIERS["free"]
    session = ServerSession(tier, now_ms=0)
    client = greeted(assets_max=tier.assets_max)
    now_ms, under_way, arrives_ms = 0, [], delay_ms
    for wait_ms in waits:
        now_ms += wait_ms
        client.receive(Ping(now_ms).encode(), now_ms)
        client.want(chance.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 10))
        under_way += client.due(now_ms).send
        if now_ms >= arrives_ms:
            for each in under_way:
                assert session.receive(each, now_ms).close is None
            under_way, arrives_ms = [], now_ms + delay_ms
    assert protocol.MESSAGES_AT_ONCE / protocol.MESSAGES_PER_S >= 10  # what the delays here rest on
    assert HEARTBEAT_MS < QUIET_MS_MAX
