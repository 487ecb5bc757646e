"""What is asked over HTTP, on each database."""

import json
import re

import pytest

from executor.bounds import Bounds
from executor.halts import EVERYTHING, Halter, Scope
from executor.reasons import Reason
from executor.service.api.agents import RESERVED_AGENTS_MAX
from tests.executor.service.api.scene import OPERATOR, THEIRS, UNKNOWN, revocation
from tests.support import HOUR_MS, T0, WALLET, key, uuid

ONE = f"/api/agents/{uuid(1)}"


def no(answer):
    """Return the status and the code of an answer that must be a problem."""
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == answer.status_code
    assert told["detail"]
    return answer.status_code, told["code"]


def test_an_agent_from_its_key_to_its_end(scene):
    made = scene.post("/api/session-keys", {"agentId": uuid(1)})
    assert (made.status_code, made.json()["agentId"]) == (201, uuid(1))
    assert scene.post("/api/session-keys", {"agentId": uuid(1)}).json() == made.json()
    reserved = scene.get(ONE).json()["agent"]
    assert reserved == {
        "agentId": uuid(1),
        "walletAddress": scene.setup.wallet,
        "state": "reserved",
        "sessionPubkey": made.json()["sessionPubkey"],
        "bounds": None,
    }
    from permits import draft, issue  # noqa: PLC0415

    signed = issue(
        draft(
            agent_id=uuid(1),
            session_pubkey=made.json()["sessionPubkey"],
            asset_whitelist=["USDC", "JTO"],
            max_amount_usd=250,
            issued_at_ms=T0,
            lifetime_s=3600,
        ),
        WALLET,
    )
    activated = scene.post("/api/agents", signed.to_json_object(), headers={})
    assert activated.status_code == 201
    agent = activated.json()["agent"]
    assert agent["state"] == "active"
    assert Bounds.from_json_object(agent["bounds"]) == scene.guard.agent(scene.setup.wallet, uuid(1)).bounds
    assert agent["bounds"] == Bounds.from_json_object(agent["bounds"]).to_json_object()
    assert scene.get("/api/agents").json() == {"agents": [agent]}
    stopped = scene.post(f"{ONE}/stop").json()
    assert (stopped["agent"]["state"], stopped["mayStillLand"]) == ("stopped", [])
    assert no(scene.post(f"{ONE}/stop")) == (409, "ILLEGAL_TRANSITION")
    assert no(scene.post("/api/agents", signed.to_json_object(), headers={})) == (409, "PERMIT_NOT_NEWER")


def test_a_permit_is_refused_with_its_reason_and_checks(scene):
    signed = scene.setup.permit()
    assert no(scene.post("/api/agents", signed.to_json_object(), {})) == (409, "SESSION_KEY_NOT_RESERVED")
    assert scene.guard.ledger.wallets() == [], "a stranger's permit leaves nothing"
    scene.setup.activate(1)
    scene.setup.now_ms += 2 * HOUR_MS
    answer = scene.post("/api/agents", signed.to_json_object(), {})
    assert answer.json()["checks"][0]["reason"] == no(answer)[1] == "PERMIT_TOO_OLD"
    forged = {**signed.to_json_object(), "walletAddress": THEIRS.wallet_address}
    assert no(scene.post("/api/agents", forged, {})) == (400, "SIGNATURE_INVALID")
    twice = b'{"permit":{},"permit":{},"walletAddress":"x","signature":"y"}'
    assert no(scene.post("/api/agents", twice, {})) == (400, "JSON_DUPLICATE_KEY")
    assert no(scene.post("/api/agents", b" " * 16_385, {})) == (413, "BODY_TOO_LARGE")


def test_a_wallet_holds_only_so_many_keys_that_it_never_used(sqlite_scene):
    scene = sqlite_scene
    for number in range(RESERVED_AGENTS_MAX):
        assert scene.post("/api/session-keys", {"agentId": uuid(number)}).status_code == 201
    assert no(scene.post("/api/session-keys", {"agentId": UNKNOWN})) == (409, "SESSION_KEYS_OVER_CAP")
    assert scene.post("/api/session-keys", {"agentId": uuid(3)}).status_code == 201
    assert scene.post("/api/session-keys", {"agentId": UNKNOWN}, scene.their_token).status_code == 201


def test_stopping_tells_what_may_still_land(scene):
    scene.setup.activate()
    _, signature = scene.sign()
    assert scene.post(f"{ONE}/stop", {}).json()["mayStillLand"] == [signature]


def test_a_signed_revocation_stops_the_agent_once_and_never_after_a_new_permit(scene):
    nonce = scene.setup.activate().terms.nonce
    _, signature = scene.sign()
    document = revocation(nonce, scene.setup.signer)
    assert no(scene.post(f"/api/agents/{uuid(2)}/stop", document, {})) == (404, "NOT_FOUND")
    assert no(scene.post(f"{ONE}/stop", revocation("ab" * 16, scene.setup.signer), {})) == (409, "PERMIT_NOT_IN_FORCE")
    assert no(scene.post(f"{ONE}/stop", revocation(nonce, THEIRS), {})) == (404, "NOT_FOUND")
    forged = {**document, "signature": revocation(nonce, THEIRS)["signature"]}
    assert no(scene.post(f"{ONE}/stop", forged, {})) == (400, "SIGNATURE_INVALID")
    assert scene.get(ONE).json()["agent"]["state"] == "active"
    stopped = scene.post(f"{ONE}/stop", document, {}).json()
    assert (stopped["agent"]["state"], stopped["mayStillLand"]) == ("stopped", [signature])
    scene.setup.now_ms += 1_000
    scene.setup.activate()
    assert no(scene.post(f"{ONE}/stop", document, {})) == (409, "PERMIT_NOT_IN_FORCE")
    assert scene.get(ONE).json()["agent"]["state"] == "active"


def test_a_stop_needs_a_token_or_a_signature(scene):
    scene.setup.activate()
    assert no(scene.post(f"{ONE}/stop", headers={})) == (401, "UNAUTHENTICATED")
    assert no(scene.post(f"{ONE}/stop", {}, headers={})) == (400, "SCHEMA_MISSING_KEY")
    assert no(scene.post(f"{ONE}/stop", {"why": "x"})) == (422, "REQUEST_MALFORMED")
    assert scene.get(ONE).json()["agent"]["state"] == "active"


def test_a_strangers_revocation_leaves_nothing_behind(scene):
    document = revocation("cd" * 16, THEIRS)
    assert no(scene.post("/api/revocations", document, {})) == (409, "WALLET_UNKNOWN")
    assert no(scene.post("/api/revocations", document)) == (409, "WALLET_UNKNOWN"), "another's token says nothing"
    assert scene.guard.ledger.wallets() == []
    assert scene.post("/api/revocations", document, scene.their_token).json() == {"revoked": True}
    assert scene.post("/api/revocations", document, {}).json() == {"revoked": False}


def test_a_users_halt_is_lifted_by_the_user_alone(scene):
    scene.setup.activate()
    _, signature = scene.sign()
    set_ = scene.post("/api/halts", {"scope": "agent", "agentId": uuid(1), "why": "it looks odd"})
    assert set_.status_code == 201
    assert set_.json() == {
        "halt": {
            "scope": "agent",
            "walletAddress": scene.setup.wallet,
            "agentId": uuid(1),
            "by": "user",
            "why": "it looks odd",
            "at": "2026-05-02T12:00:00Z",
        },
        "mayStillLand": [signature],
        "more": False,
    }
    assert scene.get("/api/halts").json()["halts"] == [set_.json()["halt"]]
    named = {"scope": "agent", "agentId": uuid(1), "walletAddress": scene.setup.wallet}
    assert scene.post("/api/halts/lift", named, OPERATOR).json() == {"lifted": False}
    assert no(scene.post("/api/halts/lift", named)) == (401, "UNAUTHENTICATED")
    assert scene.post("/api/halts/lift", {"scope": "agent", "agentId": uuid(1)}).json() == {"lifted": True}
    assert scene.post("/api/halts/lift", {"scope": "wallet"}).json() == {"lifted": False}


def test_the_operator_halts_everything_and_no_user_does(scene):
    scene.setup.activate()
    _, signature = scene.sign()
    body = {"scope": "everything", "why": "an incident"}
    assert no(scene.post("/api/halts", body)) == (401, "UNAUTHENTICATED")
    assert scene.guard.halts() == ()
    answer = scene.post("/api/halts", body, OPERATOR).json()
    assert (answer["halt"]["by"], answer["mayStillLand"]) == ("operator", [signature])
    assert [halt.scope for halt in scene.guard.halts()] == [EVERYTHING]
    assert scene.get("/api/halts", scene.their_token).json()["halts"] == [answer["halt"]]
    assert no(scene.post("/api/halts/lift", {"scope": "everything"})) == (401, "UNAUTHENTICATED")
    assert scene.post("/api/halts/lift", {"scope": "everything"}, OPERATOR).json() == {"lifted": True}


def test_a_halt_of_a_wallet_by_name_is_the_operators(scene):
    body = {"scope": "wallet", "walletAddress": scene.their_wallet, "why": "asked by them"}
    assert no(scene.post("/api/halts", body, scene.their_token)) == (401, "UNAUTHENTICATED")
    assert scene.post("/api/halts", body, OPERATOR).status_code == 201
    (halt,) = scene.guard.halts(scene.their_wallet)
    assert (halt.scope, halt.by) == (Scope(scene.their_wallet), Halter.OPERATOR)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"scope": "wallet"},
        {"scope": "wallet", "why": ""},
        {"scope": "wallet", "why": "x" * 201},
        {"scope": "wallet", "why": "\x1b[2J"},
        {"scope": "wallet", "why": 5},
        {"scope": "wallet", "agentId": uuid(1), "why": "x"},
        {"scope": "agent", "why": "x"},
        {"scope": "agent", "agentId": "1", "why": "x"},
        {"scope": "everything", "walletAddress": key(1).wallet_address, "why": "x"},
        {"scope": "wallet", "walletAddress": "1" * 44, "why": "x"},
        {"scope": "wallet", "why": "x", "by": "operator"},
        [],
        "wallet",
    ],
)
def test_a_halt_that_is_not_of_its_form_is_refused_with_the_place(sqlite_scene, body):
    answer = sqlite_scene.post("/api/halts", body, OPERATOR)
    assert no(answer) == (422, "REQUEST_MALFORMED")
    assert answer.json()["errors"]
    assert sqlite_scene.guard.ledger.wallets() == []


def test_executions_come_in_pages_newest_first(scene):
    scene.setup.activate()
    scene.land(1)
    for number in (2, 3, 4):
        scene.guard.authorize(scene.setup.request(number, sell="BONK"))
    first = scene.get(f"{ONE}/executions?limit=3").json()
    assert [each["executionId"] for each in first["executions"]] == [uuid(10_000 + n) for n in (4, 3, 2)]
    second = scene.get(f"{ONE}/executions?limit=3&cursor={first['nextCursor']}").json()
    assert second == {
        "executions": [
            {
                "executionId": uuid(10_001),
                "agentId": uuid(1),
                "state": "landed",
                "rail": "local",
                "sell": "USDC",
                "sellAmount": "100000000",
                "buy": "JTO",
                "minReceived": "39600000000",
                "reason": None,
                "decidedAt": "2026-05-02T12:00:00Z",
                "txSignature": "signature-1",
            }
        ],
        "nextCursor": None,
    }
    refused = scene.get(f"{ONE}/executions?status=refused").json()["executions"]
    assert [each["reason"] for each in refused] == ["ASSET_NOT_WHITELISTED"] * 3
    assert scene.get(f"{ONE}/executions?reason=PRICE_STALE").json() == {"executions": [], "nextCursor": None}


def test_a_filter_looks_at_so_many_and_hands_on(scene, monkeypatch):
    monkeypatch.setattr("executor.service.api.executions.LOOKED_AT_MAX", 4)
    monkeypatch.setattr("executor.service.api.executions.PAGE_MAX", 2)
    scene.setup.activate()
    scene.land(1)
    for number in range(2, 10):
        scene.guard.authorize(scene.setup.request(number, sell="BONK"))
    cursor, pages = "", []
    while cursor is not None:
        page = scene.get(f"{ONE}/executions?status=landed{cursor and f'&cursor={cursor}'}").json()
        pages.append([each["executionId"] for each in page["executions"]])
        cursor = page["nextCursor"]
    assert pages == [[], [], [uuid(10_001)]]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "cursor=-1",
        "cursor=99999999999999999999",
        "status=gone",
        "reason=WHY",
        "wallet=x",
        "limit=5&limit=6",
    ],
)
def test_a_query_that_is_not_of_its_form_is_refused(sqlite_scene, query):
    sqlite_scene.setup.activate()
    assert no(sqlite_scene.get(f"{ONE}/executions?{query}")) == (422, "REQUEST_MALFORMED")


def test_an_execution_is_told_with_every_check(scene):
    scene.setup.activate()
    scene.guard.authorize(scene.setup.request(1, sell="BONK", buy="JTO"))
    scene.land(2)
    refused = scene.get(f"/api/executions/{uuid(10_001)}").json()
    story = scene.guard.execution(scene.setup.wallet, uuid(10_001))
    assert [check["reason"] for check in refused["decision"]["checks"]] == [c.reason for c in story.decision.checks]
    assert refused["evidence"] == story.evidence.to_json_object()
    assert refused["bounds"] == story.bounds.to_json_object()
    assert refused["fill"] is None
    landed = scene.get(f"/api/executions/{uuid(10_002)}").json()
    assert landed["decision"] == {"outcome": "allowed", "valueMicroUsd": "100000000"}
    assert [step["kind"] for step in landed["steps"]] == ["authorized", "signed", "landed"]
    steps = scene.guard.execution(scene.setup.wallet, uuid(10_002)).steps
    assert [(step["seq"], step["hash"]) for step in landed["steps"]] == [(s.entry.seq, s.hash) for s in steps]
    assert landed["fill"]["received"] == "40000000000"
    assert landed["txSignature"] == "signature-2"


def fire(number=1, *, agent=1, **changed):
    asked = {"agentId": uuid(agent), "executionId": uuid(10_000 + number), "rail": "local", "sell": "USDC"}
    return {**asked, "sellAmount": "100000000", "buy": "JTO", "minReceived": "39600000000", **changed}


def test_explaining_tells_the_decision_and_writes_nothing(scene):
    scene.setup.activate()
    before = scene.guard.head_seq(scene.setup.wallet)
    assert scene.post("/api/explain", fire()).json() == {"outcome": "allowed", "valueMicroUsd": "100000000"}
    refused = scene.post("/api/explain", fire(sellAmount=10**12)).json()
    assert refused["outcome"] == "refused"
    assert refused["checks"][0]["limit"] == "$250.000000"
    assert no(scene.post("/api/explain", fire(wallet=scene.setup.wallet))) == (422, "REQUEST_MALFORMED")
    assert no(scene.post("/api/explain", fire(sellAmount=1.5))) == (422, "REQUEST_MALFORMED")
    assert no(scene.post("/api/explain", fire(sellAmount="１"))) == (422, "REQUEST_MALFORMED")
    assert scene.guard.head_seq(scene.setup.wallet) == before


def test_headroom_agrees_with_the_guard(scene):
    scene.setup.activate()
    scene.sign()
    told = scene.get("/api/headroom").json()
    assert told["executionsPer24H"] == {"used": 1, "limit": 500}
    assert told["activeAgents"] == {"used": 1, "limit": 20}
    assert told["nextSlotAt"] == "2026-05-03T12:00:01Z"
    assert (told["notionalMicroUsdPer24H"], told["autofundLamportsPer24H"], told["halts"]) == (None, None, [])
    scene.guard.set_fundable(scene.setup.wallet, fundable=True)
    assert scene.get("/api/headroom").json()["autofundLamportsPer24H"] == {"used": "0", "limit": "0"}


def test_a_wallet_without_a_past_has_all_of_its_headroom(scene):
    scene.setup.activate()
    scene.guard.halt(EVERYTHING, Halter.OPERATOR, "an incident")
    told = scene.get("/api/headroom", scene.their_token).json()
    assert told["walletAddress"] == scene.their_wallet
    assert told["executionsPer24H"] == {"used": 0, "limit": 500}
    assert [halt["scope"] for halt in told["halts"]] == ["everything"]
    assert scene.get("/api/agents", scene.their_token).json() == {"agents": []}
    activity = scene.get("/api/activity", scene.their_token).json()
    assert not any(hour["executed"] or hour["errored"] for hour in activity["hours"])
    events = scene.get("/api/events", scene.their_token).json()
    assert events == {"events": [], "next": f"{scene.guard.ledger.stream_epoch}-0", "more": False}
    assert scene.their_wallet not in scene.guard.ledger.wallets()


def test_a_day_is_told_hour_by_hour(scene):
    scene.setup.activate(lifetime_s=90_000)
    scene.land(1)
    scene.guard.authorize(scene.setup.request(2, sell="BONK"))
    scene.setup.now_ms += HOUR_MS
    for number in (3, 4):
        scene.guard.authorize(scene.setup.request(number, sell="BONK"))
    told = scene.get("/api/activity").json()
    assert (told["from"], told["to"], told["complete"]) == ("2026-05-01T14:00:00Z", "2026-05-02T13:00:00Z", True)
    assert len(told["hours"]) == 24
    assert told["hours"][22:] == [
        {"at": "2026-05-02T12:00:00Z", "executed": 1, "errored": {"ASSET_NOT_WHITELISTED": 1}},
        {"at": "2026-05-02T13:00:00Z", "executed": 0, "errored": {"ASSET_NOT_WHITELISTED": 2}},
    ]
    scene.setup.now_ms += 23 * HOUR_MS
    assert sum(hour["executed"] for hour in scene.get("/api/activity").json()["hours"]) == 0


def test_a_day_with_too_many_entries_says_that_it_is_not_all(scene, monkeypatch):
    monkeypatch.setattr("executor.service.api.wallets.ENTRIES_MAX", 3)
    monkeypatch.setattr("executor.service.api.wallets.ENTRIES_AT_ONCE", 2)
    scene.setup.activate()
    for number in range(1, 6):
        scene.guard.authorize(scene.setup.request(number, sell="BONK"))
    told = scene.get("/api/activity").json()
    assert told["complete"] is False
    assert told["hours"][23]["errored"] == {"ASSET_NOT_WHITELISTED": 3}


def test_events_in_pages_are_those_of_the_stream(scene):
    scene.setup.activate()
    scene.land(1)
    for number in (2, 3):
        scene.guard.authorize(scene.setup.request(number, sell="BONK"))
    epoch = scene.guard.ledger.stream_epoch
    told, after, more = [], "", True
    while more:
        answer = scene.get(f"/api/events?limit=2{after and f'&after={after}'}")
        page = answer.json()
        told += page["events"]
        after, more = page["next"], page["more"]
    expected = [(f"{epoch}-{seq}", event) for seq, event in scene.guard.events(scene.setup.wallet)]
    assert [(each["id"], each["event"]) for each in told] == [(event_id, event.name) for event_id, event in expected]
    frames = [re.search("data: (.*)", event.frame(event_id).decode())[1] for event_id, event in expected]
    assert [each["data"] for each in told] == [json.loads(frame) for frame in frames]
    whole = scene.get("/api/events").text
    assert all(frame in whole for frame in frames), "digit for digit"
    assert scene.get(f"/api/events?after={after}").json() == {"events": [], "next": after, "more": False}


@pytest.mark.parametrize("foreign", ["0123456789abcdef-1", "nonsense", "{epoch}-999", "{epoch}-01", "{epoch}--1", ""])
def test_an_id_of_another_ledger_gets_where_to_go_on(scene, foreign):
    scene.setup.activate()
    epoch = scene.guard.ledger.stream_epoch
    answer = scene.get(f"/api/events?after={foreign.format(epoch=epoch)}")
    assert no(answer) == (410, "EVENTS_RESET")
    assert answer.json()["next"] == f"{epoch}-2"


def test_what_was_tampered_with_is_told_without_what_lies_inside(sqlite_scene):
    scene = sqlite_scene
    scene.setup.activate()
    with scene.guard.ledger.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE heads SET seq = seq + 0, mac = zeroblob(32) WHERE wallet <> '*'")
    scene.setup.reopen()
    scene.__init__(scene.setup, scene.setup.path.parent)
    for path in ("/api/agents", "/api/headroom", "/api/activity", "/api/events", ONE, "/api/halts"):
        answer = scene.get(path)
        assert no(answer) == (503, "LEDGER_TAMPERED"), path
        assert "seal" not in answer.text
    assert no(scene.post("/api/explain", fire())) == (503, "LEDGER_TAMPERED")


def test_reason_and_state_filters_know_every_value(sqlite_scene):
    sqlite_scene.setup.activate()
    for reason in Reason:
        assert sqlite_scene.get(f"{ONE}/executions?reason={reason}").status_code == 200
