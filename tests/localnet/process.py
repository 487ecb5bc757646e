"""A local chain in a process of its own, which outlives the one that trades on it."""

import subprocess
import sys

import httpx
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.localnet.front import Fault


class ChainProcess:
    """The chain, its front at `url`, and what sets the chain up, as `LocalChain` has it."""

    def __init__(self, seed):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.localnet", str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = self._process.stdout.readline().strip()
        self._client = httpx.Client(timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self._client.close()
        self._process.communicate(timeout=60)  # it ends when nobody holds its standard input

    def fault(self, method, kind, value=None, times=1):
        """Let the front do it to the next `times` questions of `method`."""
        self._call("fault", *Fault(method, kind, value), times)

    def advance(self, blocks):
        self._call("advance", blocks)

    def height(self):
        return self._call("height")

    def new_keypair(self):
        return Keypair()

    def give_lamports(self, owner, lamports):
        self._call("give_lamports", str(owner), lamports)

    def make_mint(self, decimals):
        return Pubkey.from_string(self._call("make_mint", decimals))

    def give_tokens(self, owner, mint, amount):
        self._call("give_tokens", str(owner), str(mint), amount)

    def token_balance(self, owner, mint):
        return self._call("token_balance", str(owner), str(mint))

    def lamports(self, owner):
        return self._call("lamports", str(owner))

    def logs(self, tx_signature):
        return self._call("logs", tx_signature)

    def _call(self, name, *arguments):
        answer = self._client.post(f"{self.url}control", json=[name, *arguments])
        return answer.json()["result"]
