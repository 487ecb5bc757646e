"""The session vault: it makes an agent's session key, keeps it encrypted, and never gives it out.

A key lies in the ledger's database, encrypted under a master key that doesn't (PyNaCl SecretBox: XSalsa20-Poly1305).
The master key can be exchanged: `rotate` encrypts every session key anew.
A row that was swapped for another's is noticed: each has a key of its own, derived from the master key for its wallet
and agent, and the session key that comes out must have the address that was reserved.
"""

from __future__ import annotations

import hmac
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_seed_keypair
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from solders.pubkey import Pubkey

from executor.errors import VaultError
from executor.guard import agents
from executor.private_files import exposure
from permits import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from executor.guard import Guard
    from executor.ledger import WalletTransaction, WalletView

__all__ = ["SessionVault", "read_master_key"]

SEED_BYTES: Final = 32


class SessionVault:
    """The session keys of one ledger's agents."""

    __slots__ = ("_guard", "_master_keys", "_random_bytes")

    def __init__(
        self,
        guard: Guard,
        master_key: bytes,
        *,
        older: Sequence[bytes] = (),
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Open the vault beside `guard`'s ledger.

        Args:
            guard: whose agents' keys it keeps.
            master_key: 32 bytes, kept outside the database: see `read_master_key`.
            older: those that it takes over from; until `rotate` was called, they may still be needed.
            random_bytes: the operating system's, unless a test or a demo must repeat itself.

        """
        self._guard = guard
        self._master_keys = (master_key, *older)
        if any(len(key) != SecretBox.KEY_SIZE for key in self._master_keys):
            raise ValueError(f"a master key must be {SecretBox.KEY_SIZE} bytes")
        self._random_bytes = random_bytes

    def make_session_key(self, wallet: str, agent_id: str) -> str:
        """Make the session key of the wallet's agent, reserve it, and return its address (base58).

        The caller has authenticated the wallet. An agent has one session key: asked again, the same is returned.

        Raises:
            ValueError: as `Guard.reserve_session_key`.
            VaultError: what lies there isn't this agent's, or under another master key; or the key was destroyed.
            LedgerError: as `Ledger.change`.

        """

        def work(transaction: WalletTransaction) -> str:
            held = transaction.secret(agent_id)
            if held is None and agents.state(transaction, agent_id) is not None:
                raise VaultError(f"the session key of agent `{agent_id}` was destroyed, or never in this vault")
            public_key, _ = self._open(wallet, agent_id, box if held is None else held)
            session_pubkey = keys.encode(public_key)
            agents.reserve(transaction, agent_id, session_pubkey)
            if held is None:
                transaction.keep_secret(agent_id, box)
            return session_pubkey

        agents.require_names(wallet, agent_id)
        box = self._encrypt(wallet, agent_id, self._random_bytes(SEED_BYTES))
        return self._guard.ledger.change(wallet, work, create=True)

    def sign(self, view: WalletView, agent_id: str, session_pubkey: str, message: bytes) -> bytes:
        """Return the session key's signature (64 bytes) over `message`. For the signing gate alone.

        `view` is of the agent's wallet, under its lock, by whoever has just decided that it may sign.

        Raises:
            VaultError: there is no such key, the master key is another, or the row holds another agent's key.

        """
        held = view.secret(agent_id)
        if held is None:
            raise VaultError(f"there is no session key for agent `{agent_id}`")
        public_key, secret_key = self._open(view.head.wallet, agent_id, held)
        if str(Pubkey(public_key)) != session_pubkey:
            raise VaultError(f"the session key of agent `{agent_id}` is not the one that was reserved")
        return crypto_sign(message, secret_key)[:crypto_sign_BYTES]

    def rotate(self) -> int:
        """Encrypt anew, under the master key, every session key that lies under an older one; return how many.

        Then no older one is needed, but by backups. It may be interrupted, and called again.

        Raises:
            VaultError: one opens with none of the keys; those before it are done.
            LedgerError: as `Ledger.change`.

        """
        return sum(self._rotate(wallet) for wallet in self._guard.ledger.wallets())

    def _rotate(self, wallet: str) -> int:
        def work(transaction: WalletTransaction) -> int:
            rotated = 0
            for agent_id in transaction.secrets():
                held = transaction.secret(agent_id) or b""
                with suppress(CryptoError, TypeError, ValueError):
                    _box(self._master_keys[0], wallet, agent_id).decrypt(held)
                    continue
                _, secret_key = self._open(wallet, agent_id, held)
                transaction.change_secret(agent_id, self._encrypt(wallet, agent_id, secret_key[:SEED_BYTES]))
                rotated += 1
            return rotated

        return self._guard.ledger.change(wallet, work)

    def _encrypt(self, wallet: str, agent_id: str, seed: bytes) -> bytes:
        nonce = self._random_bytes(SecretBox.NONCE_SIZE)
        return bytes(_box(self._master_keys[0], wallet, agent_id).encrypt(seed, nonce))

    def _open(self, wallet: str, agent_id: str, box: bytes) -> tuple[bytes, bytes]:
        """Return the public and the secret key in `box`, as libsodium has them: the latter begins with its seed."""
        for master_key in self._master_keys:
            with suppress(CryptoError, TypeError, ValueError):
                return crypto_sign_seed_keypair(_box(master_key, wallet, agent_id).decrypt(box))
        raise VaultError(f"the session key of agent `{agent_id}` doesn't open: another's, or master key")

    def __repr__(self) -> str:
        return f"SessionVault({self._guard.ledger.id})"  # no key in any log

    def __reduce__(self) -> NoReturn:
        raise TypeError("a vault doesn't leave its process")


def read_master_key(path: Path) -> bytes:
    """Return the master key in the file at `path`: 64 hex digits, which nobody else may read.

    Raises:
        VaultError: others may read or write the file, or it holds something else; the text doesn't tell what.
        OSError: it can't be read.

    """
    with path.open("rb") as file:
        if (exposed := exposure(file, path)) is not None:
            raise VaultError(exposed)
        digits = file.read(2 * SecretBox.KEY_SIZE + 2).strip()
    if len(digits) != 2 * SecretBox.KEY_SIZE or not HEX.issuperset(digits):
        raise VaultError(f"`{path}` must hold a master key's {2 * SecretBox.KEY_SIZE} hex digits")
    return bytes.fromhex(digits.decode("ascii"))


HEX: Final = frozenset(b"0123456789abcdefABCDEF")


def _box(master_key: bytes, wallet: str, agent_id: str) -> SecretBox:
    """Return the box of one agent, with a key of its own: what lies in another's row doesn't open with it."""
    return SecretBox(hmac.digest(master_key, f"holdfire/vault/v1 {wallet} {agent_id}".encode(), "sha256"))
