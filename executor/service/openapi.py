"""The OpenAPI 3.1 document: made from the operations themselves, and from the types that they read and answer with.

A few endpoints aren't operations: the stream, and those of the door. They are described here, and told of only where
the application has them.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import JSONResponse
from starlette.routing import Route

from executor.service.api.operation import CheckAnswer, Who
from permits import ENVELOPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic.json_schema import JsonSchemaMode
    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from executor.service.api.operation import Operation

__all__ = ["PATH", "document", "route"]

PATH: Final = "/api/openapi.json"
OBJECT: Final = {"type": "object"}
TEXT: Final = {"type": "string"}


class WrongMember(BaseModel):
    """What in a request isn't of its form."""

    at: str
    rule: str


PROBLEM: Final = {
    "type": "object",
    "description": "A no. Programs branch on `code`.",
    "properties": {
        "status": {"type": "integer"},
        "code": {"type": "string", "pattern": "^[A-Z0-9_]+$"},
        "detail": TEXT,
        "checks": {"type": "array", "items": {"$ref": "#/components/schemas/CheckAnswer"}},
        "retryAt": {"type": "string", "format": "date-time"},
        "errors": {"type": "array", "items": {"$ref": "#/components/schemas/WrongMember"}},
        "next": TEXT,
    },
    "required": ["status", "code", "detail"],
    "additionalProperties": False,
}

ANY_REQUEST: Final = {
    400: "The request is malformed, or the document in it breaks a rule of permits.",
    403: "A page of another site may not write here.",
    408: "The body took too long.",
    413: "The body is too large.",
    421: "Nothing is served under this name.",
    429: "Too many requests: `Retry-After` says how long to wait.",
    431: "The head is too large.",
    503: "The ledger, or what tokens are checked with, can't be used or trusted now.",
}
"""What any request may be answered."""

SAYS: Final = {
    **ANY_REQUEST,
    401: "No token that is believed, or none of the one that it takes.",
    404: "There is nothing of this name that is yours.",
    409: "The rules, or the state, say no.",
    410: "The id isn't one of this ledger: read the state anew, and go on after `next`.",
    422: "The request isn't of its form.",
}


def route(operations: Sequence[Operation], others: Sequence[BaseRoute]) -> Route:
    """Return where the document of `operations`, and of what is known of `others`, is told."""
    made = document(operations, [each.path for each in others if isinstance(each, Route)])

    async def tell(_request: Request) -> JSONResponse:
        return JSONResponse(made)

    return Route(PATH, tell, methods=["GET"])


def document(operations: Sequence[Operation], paths: Sequence[str]) -> dict[str, Any]:
    """Return the document of `operations`, and of those of ELSEWHERE that are among `paths`."""
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (CheckAnswer, "serialization"),
        (WrongMember, "serialization"),
    ]
    models += [(each.answer, "serialization") for each in operations if each.answer is not None]
    models += [(each.body, "validation") for each in operations if isinstance(each.body, type)]
    refs, schemas = models_json_schema(
        list(dict.fromkeys(models)), by_alias=True, ref_template="#/components/schemas/{model}"
    )
    items: dict[str, dict[str, Any]] = {PATH: OWN, **{path: ELSEWHERE[path] for path in paths if path in ELSEWHERE}}
    for each in operations:
        items.setdefault(each.path, {})[each.method.lower()] = _told(each, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfire",
            "version": version("holdfire"),
            "summary": "Agents' permits, executions, halts and events. Nothing here makes an agent fire.",
        },
        "paths": items,
        "components": {
            "schemas": {**schemas["$defs"], "Problem": PROBLEM},
            "securitySchemes": {
                "wallet": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "operator": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _told(operation: Operation, refs: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    statuses = {*ANY_REQUEST, *operation.says_no}
    if operation.who is not Who.ANYONE:
        statuses.add(401)
    if operation.body is not None or operation.query is not None:
        statuses.add(422)
    ok: dict[str, Any] = {"description": operation.summary}
    if operation.answer is None:
        ok["content"] = {"text/plain": {"schema": TEXT}}
    else:
        ok["content"] = {"application/json": {"schema": refs[operation.answer, "serialization"]}}
    told: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": operation.handler.__name__,
        "parameters": [*_in_path(operation), *_in_query(operation)],
        "responses": {str(operation.status): ok, **_noes(statuses)},
        "security": SECURITY[operation.who],
    }
    if operation.body is not None:
        schema = refs[operation.body, "validation"] if isinstance(operation.body, type) else _embedded(operation.body)
        told["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": schema}},
        }
    return told


SECURITY: Final[dict[Who, list[dict[str, list[str]]]]] = {
    Who.ANYONE: [],
    Who.WALLET: [{"wallet": []}],
    Who.OPERATOR: [{"operator": []}],
    Who.EITHER: [{"wallet": []}, {"operator": []}, {}],
}


def _noes(statuses: set[int]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {str(status): {"description": SAYS[status], "content": content} for status in sorted(statuses)}


def _embedded(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: member for name, member in schema.items() if name != "$schema"}


def _in_path(operation: Operation) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    uuid = {"type": "string", "format": "uuid"}
    return [{"name": name, "in": "path", "required": True, "schema": uuid} for name in names]


def _in_query(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    schema = operation.query.model_json_schema()
    inlined = _inlined(schema["properties"], schema.get("$defs", {}))
    return [
        {"name": name, "in": "query", "required": False, "schema": _without_null(each)}
        for name, each in inlined.items()
    ]


def _inlined(schema: Any, defs: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(defs[schema["$ref"].rpartition("/")[2]], defs)
        return {name: _inlined(member, defs) for name, member in schema.items()}
    return [_inlined(each, defs) for each in schema] if isinstance(schema, list) else schema


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter that may be left out: a query has no null."""
    kept = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    return kept[0] if len(kept) == 1 else schema


def _texts(*names: str, **optional: Sequence[str]) -> dict[str, Any]:
    """Return the schema of an object of texts; `optional` has those that may be left out, and what they may be."""
    properties: dict[str, Any] = {
        name: {"type": "string", "format": "date-time"} if name.endswith("At") else TEXT for name in names
    }
    properties |= {name: {"enum": list(values)} for name, values in optional.items()}
    return {**OBJECT, "properties": properties, "required": list(names), "additionalProperties": False}


def _post(summary: str, name: str, status: int, asked: dict[str, Any] | None, answer: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "summary": summary,
        "operationId": name,
        "responses": {
            str(status): {"description": summary, "content": {"application/json": {"schema": answer}}},
            **_noes({*ANY_REQUEST, 401}),
        },
        "security": [{"wallet": []}] if asked is None else [],
    }
    if asked is not None:
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": asked}}}
    return {"post": told}


OWN: Final = {
    "get": {
        "summary": "Tell this document",
        "operationId": "tell_document",
        "responses": {
            "200": {"description": "This", "content": {"application/json": {"schema": OBJECT}}},
            **_noes(set(ANY_REQUEST)),
        },
        "security": [],
    }
}

ELSEWHERE: Final[dict[str, dict[str, Any]]] = {
    "/api/agents/stream": {
        "get": {
            "summary": "Follow the wallet's events as they happen (server-sent events)",
            "operationId": "follow",
            "parameters": [
                {"name": name, "in": where, "required": False, "schema": TEXT}
                for name, where in {
                    "walletAddress": "query",
                    "ticket": "query",
                    "lastEventId": "query",
                    "from": "query",
                    "Last-Event-ID": "header",
                }.items()
            ],
            "responses": {
                "200": {"description": "Events without end", "content": {"text/event-stream": {"schema": TEXT}}},
                **_noes({*ANY_REQUEST, 401}),
            },
            "security": [{"wallet": []}, {}],
        }
    },
    "/api/stream-tickets": _post(
        "Give a ticket that opens one stream within a minute", "give_ticket", 201, None, _texts("ticket", "expiresAt")
    ),
    "/api/sign-in/challenges": _post(
        "Give the text that a wallet signs in with",
        "give_challenge",
        201,
        _texts("walletAddress"),
        _texts("challenge", "message"),
    ),
    "/api/sign-in": _post(
        "Give a token for a signed challenge",
        "sign_in",
        200,
        _texts("challenge", "signature", envelope=ENVELOPES),
        _texts("token", "expiresAt"),
    ),
}
