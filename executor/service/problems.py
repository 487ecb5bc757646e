"""How the service says no: `application/problem+json` (RFC 9457), with a code that programs branch on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

__all__ = ["Problem", "answer"]


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
