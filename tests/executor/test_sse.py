# ruff: noqa: E501 - a case is a line
"""Server-sent events by the rules of WHATWG HTML, section 9.2, in whatever pieces they come."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor import sse
from executor.sse import Decoder, ServerSentEvent, StreamTooLong, encode


def decode(*chunks):
    """Return the events, the last id and the waiting time."""
    decoder = Decoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events, decoder.last_event_id, decoder.retry_ms


def decode_whole(stream):
    """Do the same with the whole text at once: a second implementation, straight from the specification."""
    text = stream.decode(errors="replace").removeprefix("\ufeff")
    events, data, event, buffered, last, retry = [], "", "", "", "", None
    for line in re.split("\r\n|\r|\n", text)[:-1]:
        if not line:
            last = buffered
            if data:
                events.append(ServerSentEvent(event or "message", data[:-1], last))
            data = event = ""
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data += value + "\n"
            elif name == "event":
                event = value
            elif name == "id" and "\0" not in value:
                buffered = value
            elif name == "retry" and re.fullmatch("[0-9]+", value):
                retry = int(value)
    return events, last, retry


def said(data, event="message", last=""):
    return ServerSentEvent(event, data, last)


CASES = {
    "field parsing": (
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        [said("\0\n 2\n1\n3\n\n4")],
        "",
        None,
    ),
    "one BOM": ("\ufeffdata:1\n\n\ufeffdata:2\n\ndata:3\n\n".encode(), [said("1"), said("3")], "", None),
    "two BOMs": ("\ufeff\ufeffdata:1\n\ndata:2\n\ndata:3\n\n".encode(), [said("2"), said("3")], "", None),
    "comments": (
        b"data:1\r:\0\n:\r\ndata:2\n:" + b"x" * 2048 + b"\rdata:3\n:data:fail\r:" + b"x" * 2048 + b"\ndata:4\n\n",
        [said("1\n2\n3\n4")],
        "",
        None,
    ),
    "data before the final empty line": (b"retry:1000\ndata:test1\n\nid:test\ndata:test2", [said("test1")], "", 1000),
    "empty data": (b"data:\n\ndata\ndata\n\ndata:test\n\n", [said(""), said("\n"), said("test")], "", None),
    "empty event": (b"event: \ndata:data\n\n", [said("data")], "", None),
    "an event's name, once": (b"event:test\ndata:x\n\ndata:x\n\n", [said("x", "test"), said("x")], "", None),
    "a name without data": (b"event:test\n\ndata:x\n\n", [said("x")], "", None),
    "an id stays": (b"id:1\ndata:a\n\ndata:b\n\nid\ndata:c\n\n", [said("a", last="1"), said("b", last="1"), said("c")], "", None),
    "an id without data": (b"id: 1\nretry: 5\n\n: heartbeat\n\n", [], "1", 5),
    "an id whose block never ends": (b"id: 1\n\nid: 2\n", [], "1", None),
    "id with NUL": (b"id:1\0\ndata:a\n\nid:2\ndata:b\n\nid:\0\ndata:c\n\n", [said("a"), said("b", last="2"), said("c", last="2")], "2", None),
    "retry bogus": (b"retry:3000\nretry:1000x\nretry:+5\nretry: -1\nretry:1.5\ndata:x\n\n", [said("x")], "", 3000),
    "retry empty": (b"retry:7\nretry\nretry:\ndata:test\n\n", [said("test")], "", 7),
    "retry in other digits": ("retry:٣\n\n".encode(), [], "", None),
    "newlines": (b"data:test\r\ndata\ndata:test\r\n\r", [said("test\n\ntest")], "", None),
    "CR alone": (b"data:a\r\rdata:b\r\r", [said("a"), said("b")], "", None),
    "null character": (b"data:\0\n\n\n\n", [said("\0")], "", None),
    "one leading space": (b"data:\ttest\rdata: \ndata:  test\n\n", [said("\ttest\n\n test")], "", None),
    "unknown fields": (b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacomment\n\n", [said("test\n")], "", None),
    "utf-8": ("data:ok…\n\n".encode(), [said("ok…")], "", None),
    "not utf-8": (b"data:\xe2\x82\ndata:\xff\xf0\x9f\x98\n\n", [said("\ufffd\n\ufffd\ufffd")], "", None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_decodes(case):
    stream, *expected = CASES[case]
    assert list(decode(stream)) == expected
    assert list(decode_whole(stream)) == expected


@pytest.mark.parametrize("case", CASES)
def test_it_decodes_the_same_split_at_any_byte(case):
    stream, *expected = CASES[case]
    assert list(decode(*(stream[at : at + 1] for at in range(len(stream))))) == expected
    for at in range(len(stream) + 1):
        assert list(decode(stream[:at], b"", stream[at:])) == expected


fields = st.sampled_from(
    [b"data", b"event", b"id", b"retry", b"", b":", b" ", b"\0", b"7", b"\xef\xbb\xbf", b"\xe2\x82"]
)
streams = st.lists(fields | st.sampled_from([b"\r", b"\n", b"\r\n", b"\n\n"]) | st.binary(max_size=3)).map(b"".join)


@given(streams, st.data())
def test_any_split_of_any_stream_says_the_same_as_the_whole(stream, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[at:to] for at, to in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decode(*chunks) == decode_whole(stream)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"))
data = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"))


@given(st.lists(st.tuples(data, words, words, st.none() | st.integers(0, 10**9))))
def test_what_is_encoded_is_decoded(blocks):
    stream = b"".join(
        encode(text, event=event, event_id=event_id, retry_ms=retry_ms) for text, event, event_id, retry_ms in blocks
    )
    assert decode(stream)[0] == [said(text, event or "message", event_id) for text, event, event_id, _ in blocks]


@pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\0b"])
@pytest.mark.parametrize("field", ["event", "event_id"])
def test_what_a_line_cant_carry_is_not_encoded(field, bad):
    with pytest.raises(ValueError, match="holds"):
        encode("data", **{field: bad})


def test_data_with_a_carriage_return_is_not_encoded():
    with pytest.raises(ValueError, match="carriage return"):
        encode("a\rb")


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    "endless",
    [b"data: " + b"x" * 200, b":" + b"x" * 200, b"data: x\n" * 50, b"data\n" * 150, b"retry: " + b"1" * 20 + b"\n"],
)
def test_what_never_ends_is_an_error_after_the_events_before_it(endless, size, monkeypatch):
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 100)
    stream, events, decoder = b"data: before\n\n" + endless, [], Decoder()

    def read():
        for at in range(0, len(stream), size):
            for event in decoder.feed(stream[at : at + size]):
                events.append(event)  # noqa: PERF402 - not `extend`: those before the error are kept

    with pytest.raises(StreamTooLong):
        read()
    assert events == [said("before")]


def test_what_is_long_but_ends_is_read(monkeypatch):
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 100)
    line = b"data:" + b"x" * 95
    assert decode((line + b"\n\n") * 5)[0] == [said("x" * 95)] * 5
    assert decode(b":" + b"\n:".join([b"x" * 90] * 50) + b"\n" + line + b"\n\n")[0] == [said("x" * 95)]
