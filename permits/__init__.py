"""Permits: what a user's wallet signs to bound what one trading agent may do, and how anyone checks it, offline.

This package needs no network, no clock and no database, and never imports `executor`.
"""

from permits.envelopes import ENVELOPES, Envelope
from permits.errors import (
    CanonicalFormError,
    Code,
    EncodingError,
    JsonError,
    KeyEncodingError,
    PermitError,
    SchemaError,
    SignatureError,
    TimeError,
)
from permits.many import verify_many
from permits.model import Permit, SignedPermit, timestamp, utc_ms
from permits.revocation import Revocation, SignedRevocation, revoke, verify_revocation
from permits.signing import LocalSigner, Signer, SignerError, draft, issue, new_nonce
from permits.verification import VerifiedPermit, permit_id, verify, verify_bytes

__all__ = [
    "ENVELOPES",
    "CanonicalFormError",
    "Code",
    "EncodingError",
    "Envelope",
    "JsonError",
    "KeyEncodingError",
    "LocalSigner",
    "Permit",
    "PermitError",
    "Revocation",
    "SchemaError",
    "SignatureError",
    "SignedPermit",
    "SignedRevocation",
    "Signer",
    "SignerError",
    "TimeError",
    "VerifiedPermit",
    "draft",
    "issue",
    "new_nonce",
    "permit_id",
    "revoke",
    "timestamp",
    "utc_ms",
    "verify",
    "verify_bytes",
    "verify_many",
    "verify_revocation",
]
