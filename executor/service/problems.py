"""How the service says no: `application/problem+json` (RFC 9457), with a code that programs branch on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

__all__ = ["HANDLERS", "Problem", "answer"]


class Problem(Exception):
    """An answer that says no. `code` is a `Reason`, or one of the service's own, in the same form."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """Say `detail` in a sentence for people; `members` are further members of the JSON object."""
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers
        self.members = members or {}

    def response(self) -> JSONResponse:
        """Return it as an answer."""
        content = {"status": self.status, "code": self.code, "detail": self.detail, **self.members}
        return JSONResponse(content, self.status, self.headers, media_type="application/problem+json")


async def answer(_request: Request, problem: Exception) -> JSONResponse:
    """Answer with the problem that an endpoint raised, as Starlette's exception handler."""
    if not isinstance(problem, Problem):
        raise problem
    return problem.response()


async def _answer_framework(_request: Request, refused: Exception) -> JSONResponse:
    """Answer what the framework itself says no to, in the form of all other answers."""
    if not isinstance(refused, HTTPException):
        raise refused
    code = FRAMEWORK_CODES.get(refused.status_code, "REQUEST_REFUSED")
    return Problem(refused.status_code, code, refused.detail.lower(), headers=refused.headers).response()


async def _answer_fault(_request: Request, _fault: Exception) -> JSONResponse:
    """Answer what nobody foresaw; the server logs it, and tells nothing of it."""
    return Problem(500, "INTERNAL", "something broke that is no fault of yours").response()


FRAMEWORK_CODES: Final = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 400: "REQUEST_MALFORMED", 413: "BODY_TOO_LARGE"}

HANDLERS: Final = {Problem: answer, HTTPException: _answer_framework, Exception: _answer_fault}
"""What Starlette calls for each exception."""
