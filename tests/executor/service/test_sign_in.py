"""A wallet signs in, and a page opens its stream with a ticket, over real sockets and on two replicas."""

import asyncio
import json
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import jwt
import pytest
from sqlalchemy import text
from starlette.applications import Starlette

from executor.service import problems
from executor.service.problems import Problem
from executor.service.sign_in import CHALLENGE_LIFETIME_S, Challenge, SignIn
from executor.service.tickets import TICKET_LIFETIME_S, Tickets
from executor.service.tokens import Caller, Purpose, TokenRefused
from permits import keys
from tests.executor.service.serving import SECRET, bearer, serving, settings_in, token
from tests.support import WALLET, Setup, key

ROOT = Path(__file__).parents[3]
SERVICE_SECRET = b"the service's own secret, long enough too"


@pytest.fixture
def client(setup, tmp_path):
    with serving(setup.guard, settings_in(tmp_path)) as client:
        yield client


def challenge(client, signer=WALLET):
    return client.post("/api/sign-in/challenges", json={"walletAddress": signer.wallet_address}).json()


def signed(told, signer=WALLET, message=None):
    signature = keys.encode(signer.sign((message or told["message"]).encode()))
    return {"challenge": told["challenge"], "signature": signature}


def sign_in(client, body):
    answer = client.post("/api/sign-in", json=body)
    return answer.status_code, answer.json()


def stream(client, **query):
    with client.stream("GET", "/api/agents/stream", params=query) as answer:
        return answer.status_code


def test_a_wallet_that_signs_the_text_gets_a_token_of_its_own(client):
    told = challenge(client)
    lines = told["message"].splitlines()
    assert lines[:2] == ["app.example.org wants you to sign in with your Solana account:", WALLET.wallet_address]
    assert lines[5:8] == ["URI: https://app.example.org", "Version: 1", "Chain ID: mainnet"]
    assert [line.partition(":")[0] for line in lines[8:]] == ["Nonce", "Issued At", "Expiration Time"]
    status, body = sign_in(client, signed(told))
    assert status == 200
    claims = jwt.decode(body["token"], SECRET, ["HS256"], audience="holdfire")
    assert claims["wallet"] == WALLET.wallet_address
    assert claims["exp"] == pytest.approx(time.time() + 3_600, abs=10)
    assert client.post("/api/stream-tickets", headers=bearer(body["token"])).status_code == 201


def ledgers(text, envelope, wallet):
    """Return what a Ledger signs for a text of several lines: the off-chain message proposal's header, spelled out."""
    domain, key = b"\xffsolana offchain", keys.decode_key(wallet)
    if envelope == "offchain-v1":
        return domain + b"\x01" + b"\x01" + key + text
    return domain + b"\x00" + bytes(32) + b"\x01" + b"\x01" + key + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize("envelope", ["offchain-v0", "offchain-v1"])
def test_a_hardware_wallet_signs_in_behind_its_header_and_says_so(client, envelope):
    told = challenge(client)
    message = ledgers(told["message"].encode(), envelope, WALLET.wallet_address)
    body = {"challenge": told["challenge"], "signature": keys.encode(WALLET.sign(message))}
    other = "offchain-v1" if envelope == "offchain-v0" else "offchain-v0"
    for wrong in (body, {**body, "envelope": "raw"}, {**body, "envelope": other}):
        status, problem = sign_in(client, wrong)
        assert (status, problem["code"]) == (401, "SIGNATURE_INVALID")
    for wrong in ({**body, "envelope": "none"}, {**body, "envelope": None}, {**body, "more": "raw"}):
        status, problem = sign_in(client, wrong)
        assert (status, problem["code"]) == (400, "BODY_MALFORMED")
    body["envelope"] = envelope
    assert sign_in(client, body)[0] == 200
    assert sign_in(client, body)[1]["code"] == "ALREADY_USED"


def test_a_challenge_is_good_for_once(client):
    body = signed(challenge(client))
    assert sign_in(client, body)[0] == 200
    status, problem = sign_in(client, body)
    assert (status, problem["code"]) == (401, "ALREADY_USED")
    respelled = {**body, "challenge": respell(body["challenge"])}
    assert sign_in(client, respelled)[1]["code"] == "ALREADY_USED"


def respell(text):
    """Spell the bytes of the MAC in another way, which base64 lets anybody."""
    return text + "="


def test_what_the_wallet_did_not_sign_signs_nobody_in(client):
    told = challenge(client)
    other = key(2)
    elsewhere = told["message"].replace("app.example.org", "evil.example.org")
    for body in (
        signed(told, other),
        signed(told, message=elsewhere),
        {**signed(told), "challenge": challenge(client, other)["challenge"]},
        {**signed(told), "challenge": told["challenge"][:-2]},
        {**signed(told), "challenge": token(WALLET.wallet_address)},
        {**signed(told), "signature": "1" * 64},
        {**signed(told), "signature": ""},
    ):
        assert sign_in(client, body)[0] == 401
    assert sign_in(client, signed(told))[0] == 200, "none of them used it up"


WELL_FORMED = json.dumps({"walletAddress": WALLET.wallet_address})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"walletAddress": 5}',
        b'{"walletAddress": "x", "y": "z"}',
        b"\xff",
        b"[" * 9_000,
        b'{"walletAddress": "\\ud800"}',
        b'{"walletAddress": "\xed\xa0\x80"}',
        b'{"walletAddress": "x",' + WELL_FORMED[1:].encode(),
        WELL_FORMED.encode("utf-16"),
        WELL_FORMED.encode("utf-8-sig"),
    ],
)
def test_what_is_no_request_is_told_so(client, body):
    for path in ("/api/sign-in/challenges", "/api/sign-in"):
        answer = client.post(path, content=body)
        assert answer.status_code == 400
        assert answer.json()["code"] == "BODY_MALFORMED"


@pytest.mark.parametrize(
    "wallet", ["", "nobody", *sorted(keys.SMALL_ORDER_KEYS)[:2], *sorted(keys.NOT_CANONICAL_KEYS)[:2]]
)
def test_a_key_that_anybody_can_sign_for_is_no_wallet(client, wallet):
    answer = client.post("/api/sign-in/challenges", json={"walletAddress": wallet})
    assert (answer.status_code, answer.json()["code"]) == (400, "WALLET_MALFORMED")


def test_a_ticket_opens_one_stream_once_and_nothing_else(client):
    mine = token(WALLET.wallet_address)
    made = client.post("/api/stream-tickets", headers=bearer(mine)).json()
    assert stream(client, ticket=mine) == 401, "a token is no ticket"
    assert client.post("/api/stream-tickets", headers=bearer(made["ticket"])).status_code == 401
    assert stream(client, ticket=made["ticket"]) == 200
    assert stream(client, ticket=made["ticket"]) == 401
    assert stream(client, ticket=respell(made["ticket"])) == 401
    assert stream(client, ticket=made["ticket"], walletAddress=WALLET.wallet_address) == 401
    assert client.post("/api/stream-tickets").status_code == 401


def test_who_takes_a_spent_row_away_replays_a_ticket_within_its_minute_and_no_more(client, setup):
    ticket = client.post("/api/stream-tickets", headers=bearer(token(WALLET.wallet_address))).json()["ticket"]
    assert stream(client, ticket=ticket) == 200
    assert stream(client, ticket=ticket) == 401
    with setup.guard.ledger.engine.begin() as connection:
        connection.execute(text("DELETE FROM spent"))
    assert stream(client, ticket=ticket) == 200
    with pytest.raises(TokenRefused):
        Purpose(SERVICE_SECRET, "stream ticket").open(ticket, time.time() + TICKET_LIFETIME_S)
    assert client.post("/api/stream-tickets", headers=bearer(ticket)).status_code == 401, "it is no token"


def test_a_ticket_or_challenge_that_was_used_at_one_replica_is_used_at_the_other(postgres_setup, tmp_path):
    other = Setup(postgres_setup.path)
    settings = settings_in(tmp_path)
    with serving(postgres_setup.guard, settings) as one, serving(other.guard, settings) as two:
        with ThreadPoolExecutor(2) as threads:
            for _ in range(5):
                ticket = one.post("/api/stream-tickets", headers=bearer(token(WALLET.wallet_address))).json()["ticket"]
                both = [threads.submit(stream, client, ticket=ticket) for client in (one, two)]
                assert sorted(each.result(60) for each in both) == [200, 401]
        body = signed(challenge(one))
        assert sign_in(two, body)[0] == 200
        assert sign_in(one, body)[0] == 401
    other.guard.close()


def test_no_key_that_somebody_else_signs_with_makes_a_ticket():
    claims = {"caller": ["w", None], "nonce": "n", "aud": "stream ticket", "exp": 10**10}
    with pytest.raises(TokenRefused):
        Purpose(SERVICE_SECRET, "stream ticket").open(jwt.encode(claims, SERVICE_SECRET, "HS256"), 0)
    for purpose in ("sign-in challenge", "another"):
        with pytest.raises(TokenRefused):
            Purpose(SERVICE_SECRET, "stream ticket").open(Purpose(SERVICE_SECRET, purpose).seal(claims, 10**10), 0)


def test_the_stream_ends_when_the_token_behind_the_ticket_would(sqlite_setup):
    """Whoever writes the stream closes it at `expires_at_s`; what opens it hands that over."""
    ledger, now = sqlite_setup.guard.ledger, [1_777_723_200.0]
    tickets = Tickets(ledger, SERVICE_SECRET, now_s=lambda: now[0])
    sealed = Purpose(SERVICE_SECRET, "stream ticket").seal(
        {"caller": ["w", 1_777_723_500], "nonce": "n"}, 1_777_723_200 + TICKET_LIFETIME_S
    )
    assert asyncio.run(tickets.take(sealed)) == Caller("w", 1_777_723_500)


def test_a_challenge_ends_after_five_minutes_by_our_clock(sqlite_setup, tmp_path):
    now = [1_777_723_200.0]
    door = SignIn(settings_in(tmp_path), sqlite_setup.guard.ledger, SERVICE_SECRET, now_s=lambda: now[0])
    app = Starlette(routes=door.routes(), exception_handlers={Problem: problems.answer})

    async def story():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            asked = await client.post("/api/sign-in/challenges", json={"walletAddress": WALLET.wallet_address})
            for later_s, status in ((CHALLENGE_LIFETIME_S, 401), (CHALLENGE_LIFETIME_S - 0.5, 200)):
                now[0] = 1_777_723_200 + later_s
                assert (await client.post("/api/sign-in", json=signed(asked.json()))).status_code == status

    asyncio.run(story())


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_what_the_page_shows_signs_a_wallet_in(client, tmp_path):
    page = (ROOT / "docs" / "how-to" / "sign-in.md").read_text()
    (snippet,) = re.findall(r"^```js\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "holdfire.mjs").write_text((ROOT / "vectors" / "holdfire.mjs").read_text())
    der = bytes.fromhex("302e020100300506032b657004220420") + bytes(range(32))
    before = f"""
        import {{ createPrivateKey, createPublicKey, sign }} from "node:crypto";
        const key = createPrivateKey({{ key: Buffer.from("{der.hex()}", "hex"), format: "der", type: "pkcs8" }});
        const raw = createPublicKey(key).export({{ format: "der", type: "spki" }}).subarray(-32);
        const wallet = {{ publicKey: {{ toBytes: () => raw }}, signMessage: async (bytes) => sign(null, bytes, key) }};
        class EventSource {{ constructor(url) {{ this.url = url; }} }}
        const service = "{str(client.base_url).rstrip("/")}";
    """
    path = tmp_path / "page.mjs"
    path.write_text(f"{before}\n{snippet}\nconsole.log(token, events.url);")
    ran = subprocess.run(["node", path], capture_output=True, timeout=60, check=True, text=True).stdout
    got, url = ran.split()
    assert jwt.decode(got, SECRET, ["HS256"], audience="holdfire")["wallet"] == WALLET.wallet_address
    with client.stream("GET", url) as answer:
        assert answer.status_code == 200


def test_the_text_is_made_from_the_fields_alone():
    assert Challenge("W", "n0", 1_777_723_200).message("a.example", "https://a.example/b") == (
        "a.example wants you to sign in with your Solana account:\nW\n\n"
        "Sign in to watch and stop your agents. This moves no funds and permits no trade.\n\n"
        "URI: https://a.example/b\nVersion: 1\nChain ID: mainnet\nNonce: n0\n"
        "Issued At: 2026-05-02T12:00:00Z\nExpiration Time: 2026-05-02T12:05:00Z"
    )
