"""The OpenAPI document says what the service does: no more, and no less."""

import re

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route

from tests.executor.service.api.scene import OPERATOR
from tests.executor.service.api.test_api import no
from tests.support import uuid

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def document(scene):
    answer = scene.get("/api/openapi.json", {})
    assert answer.status_code == 200
    return answer.json()


def test_every_route_is_in_the_document_and_the_reverse(sqlite_scene):
    told = document(sqlite_scene)["paths"]
    served = {
        (route.path, method.lower())
        for route in sqlite_scene.app.routes
        if isinstance(route, Route) and route.path.startswith(("/api", "/healthz", "/metrics"))
        for method in route.methods - {"HEAD"}
    }
    assert {(path, method) for path, item in told.items() for method in item} == served
    names = [told[path][method]["operationId"] for path, method in served]
    assert len(set(names)) == len(names)


def test_every_schema_in_it_is_one_and_every_reference_leads_somewhere(sqlite_scene):
    told = document(sqlite_scene)
    for schema in told["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for name in re.findall(r'"#/components/schemas/([^"]+)"', sqlite_scene.get("/api/openapi.json", {}).text):
        assert name in told["components"]["schemas"]
    schemathesis.openapi.from_dict(told).validate()


def campaign_of(scene, examples):
    """Ask everything in the document, as it says and as it doesn't, and hold each answer against it."""
    scene.setup.activate()
    scene.land(1)
    told = document(scene)
    del told["paths"]["/api/agents/stream"]  # it doesn't end
    schema = schemathesis.openapi.from_dict(told)
    asked = []
    for result in schema.get_all_operations():
        operation = result.ok()
        told_of = operation.definition.raw
        modes = [schemathesis.GenerationMode.POSITIVE]
        if told_of.get("parameters") or "requestBody" in told_of:  # else nothing can be told wrongly
            modes.append(schemathesis.GenerationMode.NEGATIVE)
        for mode in modes:
            strategy = operation.as_strategy(generation_mode=mode)
            asked.append(hold(scene, strategy, examples))
    return asked


def hold(scene, strategy, examples):
    asked = 0

    @seed(6)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy, who=st.sampled_from([scene.mine, scene.their_token, OPERATOR, {}]), own=st.booleans())
    def each(case, who, own):
        nonlocal asked
        asked += 1
        headers = {name: value for name, value in (case.headers or {}).items() if name.lower() != "authorization"}
        case.headers = {**headers, **who, "Host": "localhost"}
        if own and case.path_parameters:
            ids = {"agentId": uuid(1), "executionId": uuid(10_001)}
            case.path_parameters = {name: ids[name] for name in case.path_parameters}
        response = case.call(app=scene.app, base_url="http://localhost")
        case.validate_response(response, checks=CHECKS)

    each()
    return asked


def test_no_answer_is_a_fault_or_undocumented(sqlite_setup, tmp_path):
    from tests.executor.service.api.scene import Scene  # noqa: PLC0415

    scene = Scene(sqlite_setup, tmp_path, requests_per_minute_per_ip=10**6, requests_per_minute_per_wallet=10**6)
    assert sum(campaign_of(scene, 5)) > 100


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
def test_no_answer_is_a_fault_or_undocumented_however_often(sqlite_setup, tmp_path):
    from tests.executor.service.api.scene import Scene  # noqa: PLC0415

    scene = Scene(sqlite_setup, tmp_path, requests_per_minute_per_ip=10**6, requests_per_minute_per_wallet=10**6)
    print(sum(campaign_of(scene, 300)), "requests")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_no_body_breaks_it(sqlite_scene, body):
    for path in ("/api/session-keys", "/api/agents", "/api/halts", "/api/revocations", "/api/explain"):
        answer = sqlite_scene.ask("POST", path, headers=sqlite_scene.mine, content=body)
        assert 400 <= answer.status_code < 500, (path, body)


def test_another_method_is_told_which_ones_there_are(sqlite_scene):
    answer = sqlite_scene.ask("DELETE", "/api/agents", headers=sqlite_scene.mine)
    assert no(answer) == (405, "METHOD_NOT_ALLOWED")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert no(sqlite_scene.get("/api/nothing")) == (404, "NOT_FOUND")


def test_a_fault_that_nobody_foresaw_is_a_problem_too(sqlite_scene, monkeypatch):
    def broken(_ledger):
        raise RuntimeError("the secret inside")

    monkeypatch.setattr("executor.ledger.Ledger.limits", property(broken))
    answer = sqlite_scene.get("/healthz", {})
    assert no(answer) == (500, "INTERNAL")
    assert "secret" not in answer.text


def test_health_is_told_to_anyone_and_figures_to_the_operator(sqlite_scene):
    assert sqlite_scene.get("/healthz", {}).json() == {"status": "ok"}
    assert sqlite_scene.get("/healthz/live", {}).json() == {"status": "ok"}
    sqlite_scene.get(f"/api/agents/{uuid(5)}")
    sqlite_scene.ask("BREW", "/nowhere")
    text = sqlite_scene.get("/metrics", OPERATOR).text
    assert 'holdfire_requests_total{method="GET",route="/api/agents/{agentId}",status="404"} 1.0' in text
    assert 'holdfire_requests_total{method="other",route="none",status="404"} 1.0' in text
    assert "holdfire_open_streams 0.0" in text
    assert sqlite_scene.setup.wallet not in text
    assert uuid(5) not in text
