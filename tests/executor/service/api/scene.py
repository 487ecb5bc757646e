"""A service with two users, asked through its ASGI application."""

import asyncio

import httpx

from executor.fill import Landing
from executor.guard import AsyncGuard
from executor.service import create_app
from executor.signing import SessionVault
from permits import Revocation, revoke, timestamp
from tests.executor.service.serving import bearer, settings_in, token
from tests.support import T0, Setup, key, uuid

OPERATOR = bearer("the-operators-token-is-long-enough")
THEIRS = key(50)
UNKNOWN = uuid(999)


class Scene:
    """Mine is the agent 1, and another's is the agent 3."""

    def __init__(self, setup, folder, **settings):
        self.setup = setup
        self.guard = setup.guard
        self.mine = bearer(token(setup.wallet))
        self.their_wallet = THEIRS.wallet_address
        self.their_token = bearer(token(self.their_wallet))
        self.vault = SessionVault(setup.guard, b"m" * 32)
        self.app = create_app(AsyncGuard(setup.guard), settings_in(folder, **settings), vault=self.vault)

    def ask(self, method, path, *, headers=None, **more):
        """Send one request, and return the answer."""

        async def asked():
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, headers=headers, **more)

        return asyncio.run(asked())

    def get(self, path, headers=None):
        return self.ask("GET", path, headers=self.mine if headers is None else headers)

    def post(self, path, body=None, headers=None):
        more = {} if body is None else {"content": body} if isinstance(body, bytes) else {"json": body}
        return self.ask("POST", path, headers=self.mine if headers is None else headers, **more)

    def others(self):
        """Return the other user, with an agent and a refused execution."""
        theirs = Setup.__new__(Setup)
        theirs.__dict__ = {**self.setup.__dict__, "signer": THEIRS, "wallet": self.their_wallet}
        theirs.activate(3)
        refused = theirs.request(7, agent=3, sell="BONK")
        self.guard.authorize(refused)
        return theirs, refused

    def sign(self, number=1, **fields):
        """Fire, and sign: return the authorization and the signature."""
        allowed = self.guard.authorize(self.setup.request(number, **fields))
        assert self.setup.sign(allowed.authorization, f"signature-{number}") is None
        return allowed.authorization, f"signature-{number}"

    def land(self, number=1):
        authorization, _ = self.sign(number)
        landing = Landing(fee_lamports=5_000, received=40 * 10**9, slot=9, sold=100 * 10**6)
        self.guard.mark_landed(self.setup.wallet, authorization.execution_id, landing)


def revocation(nonce, signer):
    document = Revocation.from_json_object({"nonce": nonce, "revokedAt": timestamp(T0)})
    return revoke(document, signer).to_json_object()
