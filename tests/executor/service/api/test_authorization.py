"""Who gets what: every operation, for everybody who isn't meant."""

import pytest

from executor.service.api import operations
from executor.service.api.operation import Who
from executor.service.metrics import Metrics
from executor.service.parts import Parts
from tests.executor.service.api.scene import OPERATOR, THEIRS, UNKNOWN, revocation
from tests.executor.service.api.test_api import fire, no
from tests.support import uuid

ALL = operations(Parts(*[type("Nothing", (), {"guard": type("Inner", (), {"ledger": None})})] * 5), Metrics())
BODIES = {
    "/api/session-keys": {"agentId": uuid(1)},
    "/api/explain": fire(),
    "/api/halts": {"scope": "wallet", "why": "x"},
    "/api/halts/lift": {"scope": "wallet"},
}


def named(operation):
    return f"{operation.method} {operation.path}"


def path_of(operation, agent=1, execution=10_001):
    return operation.path.replace("{agentId}", uuid(agent)).replace("{executionId}", uuid(execution))


@pytest.mark.parametrize("operation", [each for each in ALL if each.who is not Who.ANYONE], ids=named)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer a.b.c"}], ids=["no token", "a forged one"])
def test_without_a_token_that_is_believed_nothing_is_told(sqlite_scene, operation, headers):
    scene = sqlite_scene
    scene.setup.activate()
    before = scene.guard.head_seq(scene.setup.wallet)
    if operation.path == "/api/revocations" and not headers:
        return  # a signature is its token
    body = BODIES.get(operation.path)
    if operation.path == "/api/revocations":
        body = revocation("ab" * 16, THEIRS)
    answer = scene.ask(operation.method, path_of(operation), headers=headers, **({"json": body} if body else {}))
    assert no(answer) == (401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert scene.guard.head_seq(scene.setup.wallet) == before


@pytest.mark.parametrize("operation", [each for each in ALL if each.who is Who.OPERATOR], ids=named)
def test_a_wallets_token_is_not_the_operators(sqlite_scene, operation):
    assert no(sqlite_scene.ask(operation.method, path_of(operation), headers=sqlite_scene.mine))[0] == 401
    assert sqlite_scene.ask(operation.method, path_of(operation), headers=OPERATOR).status_code == 200


@pytest.mark.parametrize("operation", [each for each in ALL if each.who is Who.WALLET], ids=named)
def test_the_operators_token_opens_no_wallet(sqlite_scene, operation):
    answer = sqlite_scene.ask(operation.method, path_of(operation), headers=OPERATOR, json=BODIES.get(operation.path))
    assert no(answer)[0] == 401


FOREIGN = [
    *[("GET", each.path, None) for each in ALL if "{" in each.path and each.method == "GET"],
    ("POST", "/api/agents/{agentId}/stop", None),
    ("POST", "/api/explain", "explain"),
    ("POST", "/api/halts", "halt"),
    ("POST", "/api/halts/lift", "lift"),
]


@pytest.mark.parametrize(("method", "path", "body"), FOREIGN, ids=lambda value: value and str(value))
def test_foreign_ids_and_unknown_ones_get_the_same_404_and_change_nothing(scene, method, path, body):
    scene.setup.activate()
    theirs, refused = scene.others()
    before = scene.guard.head_seq(theirs.wallet), scene.guard.head_seq(scene.setup.wallet)
    answers = []
    for agent, execution in ((theirs.request(agent=3).agent_id, refused.execution_id), (UNKNOWN, UNKNOWN)):
        filled = path.replace("{agentId}", agent).replace("{executionId}", execution)
        bodies = {
            "explain": {**fire(), "agentId": agent},
            "halt": {"scope": "agent", "agentId": agent, "why": "x"},
            "lift": {"scope": "agent", "agentId": agent},
        }
        answers.append(scene.ask(method, filled, headers=scene.mine, json=bodies.get(body)))
        assert no(answers[-1]) == (404, "NOT_FOUND")
    assert answers[0].content == answers[1].content
    assert answers[0].headers == answers[1].headers
    assert (scene.guard.head_seq(theirs.wallet), scene.guard.head_seq(scene.setup.wallet)) == before
    own = scene.ask(method, path_of_theirs(path, refused), headers=scene.their_token, json=None)
    if body is None:
        assert own.status_code == 200, "it is there, for whose it is"


def path_of_theirs(path, refused):
    return path.replace("{agentId}", refused.agent_id).replace("{executionId}", refused.execution_id)


@pytest.mark.parametrize(
    "operation", [each for each in ALL if each.who is Who.WALLET and each.method == "GET"], ids=named
)
def test_nothing_of_another_wallet_stands_in_any_answer(scene, operation):
    scene.setup.activate()
    theirs, refused = scene.others()
    answer = scene.ask("GET", path_of(operation), headers=scene.mine)
    for foreign in (theirs.wallet, refused.agent_id, refused.execution_id):
        assert foreign not in answer.text


@pytest.mark.parametrize("bad", ["x", uuid(1).upper(), "%00", "..%2f", "é", "1" * 3_000])
@pytest.mark.parametrize("path", ["/api/agents/{}", "/api/executions/{}", "/api/agents/{}/executions"])
def test_what_can_be_no_id_is_as_unknown_as_any(sqlite_scene, path, bad):
    assert no(sqlite_scene.get(path.format(bad)))[0] == 404


def test_a_fire_of_the_same_execution_by_another_wallet_is_not_seen(scene):
    """Ids are a wallet's own: that another has used one can't be found out."""
    scene.setup.activate()
    _, refused = scene.others()
    told = scene.post("/api/explain", {**fire(), "executionId": refused.execution_id}).json()
    assert told["outcome"] == "allowed"
