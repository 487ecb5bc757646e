"""The session vault: it makes an agent's session key, keeps it encrypted, and never gives it out.

A key lies in the ledger's database, encrypted under a master key that doesn't (PyNaCl SecretBox: XSalsa20-Poly1305).
A row that was swapped for another's is noticed: each has a key of its own, derived from the master key for its wallet
and agent, and the session key that comes out must have the address that was reserved.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Final, NoReturn

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.signing import SigningKey

from executor.errors import VaultError
from permits import keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from executor.guard import Guard
    from executor.ledger import WalletTransaction

__all__ = ["SessionVault"]

SEED_BYTES: Final = 32


class SessionVault:
    """The session keys of one ledger's agents."""

    __slots__ = ("_guard", "_master_key", "_random_bytes")

    def __init__(
        self, guard: Guard, master_key: bytes, *, random_bytes: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        """Open the vault beside `guard`'s ledger with `master_key` (32 bytes, kept outside the database)."""
        self._guard = guard
        if len(master_key) != SecretBox.KEY_SIZE:
            raise ValueError(f"the master key must be {SecretBox.KEY_SIZE} bytes")
        self._master_key = master_key
        self._random_bytes = random_bytes

    def make_session_key(self, wallet: str, agent_id: str) -> str:
        """Make the session key of the wallet's agent, reserve it, and return its address (base58).

        The caller has authenticated the wallet. An agent has one session key: asked again, the same is returned.

        Raises:
            VaultError: what lies there isn't this agent's, or under another master key.
            IllegalTransition, LedgerError: as `Guard.reserve_session_key`.

        """

        def work(transaction: WalletTransaction) -> SigningKey:
            held = transaction.secret(agent_id)
            if held is not None:
                return self._open(wallet, agent_id, held)
            transaction.keep_secret(agent_id, bytes(self._box(wallet, agent_id).encrypt(seed, nonce)))
            return SigningKey(seed)

        seed, nonce = self._random_bytes(SEED_BYTES), self._random_bytes(SecretBox.NONCE_SIZE)
        key = self._guard.ledger.change(wallet, work, create=True)
        session_pubkey = keys.encode(bytes(key.verify_key))
        self._guard.reserve_session_key(wallet, agent_id, session_pubkey)
        return session_pubkey

    def sign(self, wallet: str, agent_id: str, session_pubkey: str, message: bytes) -> bytes:
        """Return the session key's signature (64 bytes) over `message`. For the signing gate alone.

        Raises:
            VaultError: there is no such key, the master key is another, or the row holds another agent's key.

        """
        with self._guard.ledger.view(wallet) as view:
            held = view.secret(agent_id)
        if held is None:
            raise VaultError(f"there is no session key for agent `{agent_id}`")
        key = self._open(wallet, agent_id, held)
        if keys.encode(bytes(key.verify_key)) != session_pubkey:
            raise VaultError(f"the session key of agent `{agent_id}` is not the one that was reserved")
        return key.sign(message).signature

    def _box(self, wallet: str, agent_id: str) -> SecretBox:
        """Return the box of one agent, with a key of its own: what lies in another's row doesn't open with it."""
        return SecretBox(hmac.digest(self._master_key, f"holdfire/vault/v1 {wallet} {agent_id}".encode(), "sha256"))

    def _open(self, wallet: str, agent_id: str, box: bytes) -> SigningKey:
        try:
            return SigningKey(self._box(wallet, agent_id).decrypt(box))
        except (CryptoError, TypeError, ValueError):
            raise VaultError(f"the session key of agent `{agent_id}` doesn't open: another's, or master key") from None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a vault doesn't leave its process")
