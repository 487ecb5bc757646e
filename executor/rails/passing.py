"""What passes: faults of a node, or of the way to it, that say nothing of what was asked. Only here is that decided.

Behind one address stand many nodes, and one of them may lag by a slot or two. What passes is asked again, a few times;
if it stays, it is told as a `ChainError`, so that nothing is concluded from it: not that a transaction is refused, not
that an account can't be moved, not that an attempt is dead.

- HTTP: 408, 425, 429, 500, 502 to 504, and 520 to 524, by which Cloudflare says that the server behind it is out of
  reach or slow.
- JSON-RPC: a node that isn't that far yet, a limit of requests, and a preflight whose error passes.
- the chain's own errors: those of the moment, as a blockhash that the node hasn't seen, a full block, a lock. An
  instruction's error, too few lamports, or what can't be read stays.

The codes are those of Agave's `rpc-client-api` (`custom_error.rs`) and of providers that answer a limit with HTTP 200;
the chain's errors are those of `TransactionError` in `solana-transaction-error`. What neither names doesn't pass.

>>> error_passes("BlockhashNotFound"), error_passes('{"InstructionError": [0, {"Custom": 1}]}')
(True, False)
"""

from __future__ import annotations

from typing import Final

__all__ = ["PAUSES_S", "PREFLIGHT_FAILED", "code_passes", "error_passes", "status_passes"]

PAUSES_S: Final = (0.25, 0.5, 1.0)
"""Four tries, each after a longer pause: long enough for a node that lags by a few slots, short for one that fires."""

PASSING_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 525)})

PREFLIGHT_FAILED: Final = -32002
"""A transaction wasn't sent, since the node tried it and it failed; `data.err` says by what."""

PASSING_CODES: Final = frozenset(
    {
        -32004,  # no block for this slot yet
        -32005,  # the node is behind
        -32014,  # no status of the block yet
        -32016,  # `minContextSlot` isn't reached
        -32007,  # QuickNode: requests a second. Of a node it is a skipped slot, which nothing here asks for
        -32429,  # Helius: requests a second
        429,  # public nodes and others, with HTTP 200: too many requests
    }
)

PASSING_ERRORS: Final = frozenset(
    {
        "AccountInUse",
        "BlockhashNotFound",
        "ClusterMaintenance",
        "CommitCancelled",
        "ProgramCacheHitMaxLimit",
        "ProgramExecutionTemporarilyRestricted",
        "ResanitizationNeeded",
        "WouldExceedAccountDataBlockLimit",
        "WouldExceedMaxAccountCostLimit",
        "WouldExceedMaxBlockCostLimit",
        "WouldExceedMaxVoteCostLimit",
    }
)


def status_passes(status: int) -> bool:
    """Tell whether an answer of this HTTP status may be another at the next try."""
    return status in PASSING_STATUS


def code_passes(code: int, data: object) -> bool:
    """Tell whether an error of JSON-RPC, of this `code` and with this `data`, may be another at the next try."""
    if code == PREFLIGHT_FAILED and isinstance(data, dict):
        return error_passes(data.get("err"))
    return code in PASSING_CODES


def error_passes(error: object) -> bool:
    """Tell whether the chain's `error`, as a value or as `answers.error_text`, may be another at the next try."""
    if isinstance(error, dict):
        error = next(iter(error), None)
    return isinstance(error, str) and error.removeprefix('{"').partition('"')[0] in PASSING_ERRORS
