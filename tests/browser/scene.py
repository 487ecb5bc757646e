"""A wallet with agents that really fire, in the demo's world, and the service over it: what the console shows."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

from solders.pubkey import Pubkey

from executor.demo.world import World
from executor.service import create_app
from permits import draft, issue
from tests.executor.service.served import served
from tests.executor.service.serving import settings_in, token

DAY_S = 86_400


class Scene:
    """The demo's world, with as many agents as one likes. Its loop runs in another thread, as playwright needs it."""

    def __init__(self, folder, threads):
        self.folder = folder
        self.world = World(folder / "world", seed=7)
        self.wallet = self.world.wallet
        self._threads = threads

    def in_thread(self, work):
        return self._threads.submit(lambda: asyncio.run(work)).result(60)

    def add_agent(self, *, assets=("USDC", "JTO"), cap_usd=250, lifetime_s=7 * DAY_S, usdc=10_000):
        """Return a new agent's id; its permit is in force, and its session wallet has lamports and USDC."""
        world = self.world
        agent_id = world.new_id()
        session_pubkey = world.vault.make_session_key(self.wallet, agent_id)
        key = Pubkey.from_string(session_pubkey)
        world.chain.give_lamports(key, 10**9)
        world.chain.give_tokens(key, Pubkey.from_string(world.usdc.mint), usdc * 10**6)
        world.chain.give_tokens(key, Pubkey.from_string(world.jto.mint), 0)
        world.guard.activate(self.permit(agent_id, session_pubkey, assets, cap_usd, lifetime_s))
        return agent_id

    def permit(self, agent_id, session_pubkey, assets=("USDC", "JTO"), cap_usd=250, lifetime_s=DAY_S):
        """Return a permit that the wallet signed."""
        permit = draft(
            agent_id=agent_id,
            session_pubkey=session_pubkey,
            asset_whitelist=list(assets),
            max_amount_usd=cap_usd,
            issued_at_ms=self.world.now_ms,
            lifetime_s=lifetime_s,
            nonce=self.world.random_bytes(16).hex(),
        )
        return issue(permit, self.world.signer)

    def request(self, agent_id, usd, **fields):
        return self.world.request(Decimal(usd), **fields).model_copy(update={"agent_id": agent_id})

    def fire(self, agent_id, usd, **fields):
        """Fire for real; return the executionId."""
        request = self.request(agent_id, usd, **fields)
        self.in_thread(self.world.executor.fire(request))
        return request.execution_id

    @contextlib.contextmanager
    def serving(self, **more):
        """Serve it; yield its address."""
        settings = settings_in(self.folder, **{"sign_in_domain": "localhost", **more})
        with served(create_app(self.world.awaited, settings, vault=self.world.vault)) as address:
            yield address

    def token(self, **more):
        return token(self.wallet, **more)


@contextlib.contextmanager
def scene_in(folder):
    with ThreadPoolExecutor(1) as threads:
        scene = Scene(folder, threads)
        try:
            yield scene
        finally:
            scene.in_thread(scene.world.awaited.close())
