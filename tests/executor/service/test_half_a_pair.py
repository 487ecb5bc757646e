"""Half a surrogate pair is no text: JSON can spell it, UTF-8 can't hold it. Each way in says so, by a code."""

import asyncio
import base64
import hmac
import json
import socket

import pytest
from websockets.exceptions import InvalidStatus

from executor.prices.protocol import ErrorCode
from tests.executor.prices.market import market
from tests.executor.service.serving import SECRET, bearer, claims, serving, settings_in, token
from tests.support import WALLET, uuid

OPERATOR = "the-operators-token-is-long-enough"
HALF = "\ud800"
BODIES = [
    b'"\\ud800"',
    b'{"\\ud800": 1}',
    b'{"\\ud800": 1, "\\ud800": 2}',
    b'{"a": {"\\udc00\\ud800": 1}}',
    b'{"a": "\xed\xa0\x80"}',
    json.dumps({"walletAddress": HALF}).encode(),
    json.dumps({"challenge": HALF, "signature": HALF}).encode(),
    json.dumps({"challenge": "x", "signature": "x", "envelope": HALF}).encode(),
    json.dumps({"why": HALF}).encode(),
    json.dumps({"permit": HALF}).encode(),
]


@pytest.fixture
def client(sqlite_setup, tmp_path):
    sqlite_setup.activate()
    with serving(sqlite_setup.guard, settings_in(tmp_path, wallet_address_streams=True)) as served:
        yield served


def paths(client, method):
    """Return the paths that the document lists, with an agent's id where one is asked for."""
    document = client.get("/api/openapi.json").json()["paths"]
    found = [path.replace("{agentId}", uuid(1)) for path, operations in document.items() if method in operations]
    assert len(found) > 5
    return found


def test_in_any_body_it_is_a_named_refusal(client):
    asked = 0
    for path in paths(client, "post"):
        for body in BODIES:
            for who in (token(WALLET.wallet_address), OPERATOR):
                answer = client.post(path, content=body, headers=bearer(who))
                if path == "/api/stream-tickets":  # it has no body, and reads none
                    assert answer.status_code in {201, 401}
                else:
                    assert answer.status_code in {400, 401}, (path, body, answer.text)
                    assert answer.status_code == 401 or answer.json()["code"].isupper()
                    asked += answer.status_code == 400
    assert asked >= 5 * len(BODIES)


@pytest.mark.parametrize("half", ["%ED%A0%80", "%5Cud800"])
def test_in_an_address_it_names_nothing(client, half):
    query = "&".join(f"{name}={half}" for name in ("walletAddress", "ticket", "after", "limit", "lastEventId", half))
    wallet = bearer(token(WALLET.wallet_address))
    for path in (f"/{half}", f"/api/agents/{half}", f"/api/agents/{half}/executions", f"/api/executions/{half}"):
        assert client.get(path, headers=wallet).status_code == 404
    assert client.post(f"/api/agents/{half}/stop", headers=wallet).status_code == 404
    for path in ("/api/events", f"/api/agents/{uuid(1)}/executions"):
        assert client.get(f"{path}?{query}", headers=wallet).status_code == 422
    assert client.get(f"/api/agents/stream?walletAddress={half}").json()["code"] == "WALLET_MALFORMED"
    assert client.get(f"/api/agents/stream?ticket={half}").json()["code"] == "TICKET_REFUSED"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /\xed\xa0\x80 HTTP/1.1\r\nHost: 127.0.0.1", 400),
        (b"GET /healthz?\xed\xa0\x80 HTTP/1.1\r\nHost: 127.0.0.1", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\xed\xa0\x80", 421),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-\xed\xa0\x80: x", 400),
        (b"GET /api/agents HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer \xed\xa0\x80", 401),
        (b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer \xed\xa0\x80", 401),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: \xed\xa0\x80", 200),
        (b"POST /api/halts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nOrigin: \xed\xa0\x80", 403),
        (b"GET /api/agents/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nLast-Event-ID: \xed\xa0\x80", 400),
    ],
)
def test_in_a_head_it_is_refused_where_it_is_looked_at(client, head, status):
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as opened:
        opened.sendall(head + b"\r\n\r\n")
        assert int(opened.makefile("rb").readline().split()[1]) == status


def signed(header, payload):
    """Return a token under the service's key, whatever it says."""
    parts = (base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (header, payload))
    text = b".".join(parts)
    return (text + b"." + base64.urlsafe_b64encode(hmac.digest(SECRET, text, "sha256")).rstrip(b"=")).decode()


HEADER = {"alg": "HS256", "typ": "JWT"}


@pytest.mark.parametrize(
    ("header", "payload", "status"),
    [
        ({"alg": HALF}, {}, 401),
        ({"crit": [HALF]}, {}, 401),
        ({}, {"wallet": HALF}, 401),
        ({}, {"aud": HALF}, 401),
        ({}, {"exp": HALF}, 401),
        ({"kid": HALF}, {"tier": HALF, "sub": HALF, HALF: 1}, 200),  # nobody looks at these
    ],
)
def test_in_a_token_it_is_not_believed(client, header, payload, status):
    headers = bearer(signed(HEADER | header, claims(WALLET.wallet_address) | payload))
    assert client.get("/api/agents", headers=headers).status_code == status
    made = client.post("/api/stream-tickets", headers=headers)
    assert made.status_code == (201 if status == 200 else status)
    if status == 200:
        with client.stream("GET", "/api/agents/stream", params={"ticket": made.json()["ticket"]}) as stream:
            assert stream.status_code == 200


def test_on_a_price_stream_it_is_no_message():
    async def scene():
        async with market() as opened_market:
            for query in ("?api_key=%ED%A0%80", "?token=%ED%A0%80&token=\\ud800"):
                with pytest.raises(InvalidStatus) as refused:
                    await opened_market.connect(query=query)
                assert refused.value.response.status_code == 401
            for text in ('{"type":"\\ud800"}', '{"type":"subscribe","assets":["\\ud800"]}', '"\\ud800"'):
                async with opened_market.connect() as opened:
                    await opened.recv()
                    await opened.send(text)
                    told = json.loads(await opened.recv())
                    assert (told["type"], told["code"]) == ("error", ErrorCode.BAD_JSON)

    asyncio.run(asyncio.wait_for(scene(), 60))
