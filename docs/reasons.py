"""Writes reference/reasons.md: `python docs/reasons.py`.

The order and the sentences are the enum's own; which calls give a reason, and what to do about it, stands here.
"""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import fill
from typing import Final, NamedTuple

from executor import reasons
from executor.reasons import Reason

PAGE: Final = Path(__file__).parent / "reference" / "reasons.md"
WIDTH: Final = 120

CALLS: Final = {
    "activation": "`Guard.activate`",
    "fire": "`Guard.authorize`, `authorize_many` and `explain`",
    "funding": "`Guard.authorize_funding`",
    "signing": "`Guard.mark_signed`, and so `SigningGate.sign`; the attempt is voided",
    "end": "the end of an attempt: `Guard.void`, `mark_failed`, `mark_dead`",
}


class Said(NamedTuple):
    """What the page says of a reason besides its sentence."""

    calls: str
    """The names in CALLS, by spaces."""
    advice: str
    retry: bool = False
    """Time alone may cure it."""


SAID: Final = {
    Reason.LEDGER_TAMPERED: Said(
        "activation fire funding",
        "Call the operator. Nothing of this wallet fires until the ledger is mended; `executor db check` or "
        "`check_ledger` names what is wrong. Nothing was recorded.",
    ),
    Reason.CLOCK_UNTRUSTED: Said(
        "activation fire funding",
        "Set the host's clock right, and the database host's. A process whose own clock was set while it ran has to be "
        "started again. Nothing was recorded: then ask again with the same executionId.",
    ),
    Reason.EXECUTION_CONFLICT: Said(
        "fire funding",
        "Take a new executionId. `Guard.execution` tells what the old one stands for. Nothing was recorded.",
    ),
    Reason.AUTHORIZATION_EXPIRED: Said(
        "signing", "Fire again under a new executionId, and build faster; the slot of the old attempt stays used."
    ),
    Reason.AGENT_UNKNOWN: Said(
        "fire funding signing",
        "Check the wallet and the agentId; reserve a session key and activate a permit first. A fire refused so "
        "isn't recorded.",
    ),
    Reason.HALTED: Said(
        "activation fire funding signing",
        "Wait for whoever halted: the check's `actual` says who and why. `Guard.lift`, by the same halter and with the "
        "same scope, lifts it. There is one check for each halt.",
    ),
    Reason.SESSION_KEY_NOT_RESERVED: Said(
        "activation",
        "Reserve the session key for this wallet's agent (`SessionVault.make_session_key` or "
        "`Guard.reserve_session_key`), or have the wallet sign a permit with the key that is reserved.",
    ),
    Reason.PERMIT_NOT_YET_VALID: Said(
        "activation",
        "Activate the same permit again from `retry_at_ms` on. If it was signed just now, a clock is wrong: the "
        "signer's is ahead, or yours behind.",
        retry=True,
    ),
    Reason.PERMIT_TOO_OLD: Said(
        "activation",
        "Have the wallet sign a new permit, and activate it within `max_permit_age_s` (3,600 unless changed).",
    ),
    Reason.PERMIT_NOT_NEWER: Said(
        "activation",
        "Look first: this very permit may be in force already (`Guard.agent`). Else have the wallet sign a new one, "
        "issued after the agent's current one, and after its stop if it was stopped.",
    ),
    Reason.NONCE_SPENT: Said(
        "activation",
        "Look first: this very permit may be in force already (`Guard.agent`). Else have the wallet sign a new permit "
        "with a new nonce; a revoked one never comes back.",
    ),
    Reason.SCOPE_CHANGED: Said(
        "activation",
        "Sign the same scope again: whitelist with its mints, cap, session key. For another whitelist or cap, stop the "
        "agent, and then have the wallet sign a permit.",
    ),
    Reason.ASSET_UNKNOWN: Said(
        "activation",
        "Teach the asset registry the names in the check's `actual`, or have the wallet sign a permit without them.",
    ),
    Reason.AGENT_COMPLETED: Said("activation fire funding signing", "Take a new agentId: this one never fires again."),
    Reason.AGENT_STOPPED: Said(
        "fire funding signing",
        "Have the wallet sign a permit now, of any scope, and activate it: the agent starts again.",
    ),
    Reason.AGENT_PAUSED: Said(
        "fire funding signing",
        "Have the wallet sign a new permit of the same scope, and activate it: the agent resumes.",
    ),
    Reason.PERMIT_EXPIRED: Said(
        "activation fire funding signing",
        "Have the wallet sign a new permit of the same scope, and activate it. At a fire, if this is the first reason, "
        "the refusal pauses the agent; at an activation or a signing nothing else changes.",
    ),
    Reason.PERMIT_EXPIRING: Said(
        "fire signing",
        "Renew: activate a new permit of the same scope while the old one lasts. `expiry_margin_s` (90 unless changed) "
        "says how soon is too soon.",
    ),
    Reason.INTENT_TAKEN: Said(
        "fire",
        "Look at the execution that the check's `actual` names. Once it is voided, failed or dead, the intent is free; "
        "if it landed, what was intended is done: take another `intent_key` for something else.",
    ),
    Reason.ASSET_NOT_WHITELISTED: Said(
        "fire signing",
        "Name assets exactly as the permit does: the check's `limit` lists them. For others, stop the agent and have "
        "the wallet sign a new scope.",
    ),
    Reason.ASSETS_IDENTICAL: Said("fire signing", "Sell and buy different mints: two names may stand for one."),
    Reason.PRICE_MISSING: Said(
        "fire signing",
        "Let the price source quote the mint within a second, without a fault (the log tells it), then fire again.",
    ),
    Reason.PRICE_STALE: Said(
        "fire signing",
        "Mend the price source: its quotes are flagged stale, older than their `max_age_ms`, or from more than 1 s "
        "ahead. Then fire again.",
    ),
    Reason.AMOUNT_OVER_CAP: Said(
        "fire signing",
        "Trade less. The larger of both legs counts, at the highest fresh quote; the check has the cap and the value.",
    ),
    Reason.MIN_RECEIVED_TOO_LOW: Said(
        "fire signing",
        "Ask for at least the check's `limit`, in base units of what is bought. It is the sold amount at its highest "
        "quote, over the bought asset's lowest, less `max_slippage_bps`.",
    ),
    Reason.AGENTS_OVER_CAP: Said(
        "activation fire signing", "Stop or complete another agent of the user, or wait until the permit of one ends."
    ),
    Reason.EXECUTIONS_OVER_CAP: Said(
        "fire", "Fire again from `retry_at_ms` on. `Guard.headroom` tells beforehand.", retry=True
    ),
    Reason.NOTIONAL_OVER_CAP: Said(
        "fire signing",
        "Fire again from `retry_at_ms` on, or trade less. Without a `retry_at_ms` the trade alone is worth more than a "
        "day allows.",
        retry=True,
    ),
    Reason.INTERVAL_TOO_SHORT: Said("fire", "Fire again from `retry_at_ms` on.", retry=True),
    Reason.FUNDING_NOT_ALLOWED: Said(
        "funding signing", "Name the wallet as one to fund: `executor funding allow`, or `Guard.set_fundable`."
    ),
    Reason.FUNDING_OVER_CAP: Said(
        "funding signing",
        "Ask for less, or again from `retry_at_ms` on. `autofund_lamports_per_24h` is 0 unless changed: nobody is "
        "given anything.",
        retry=True,
    ),
    Reason.FUNDING_OVER_CAP_IN_ALL: Said(
        "funding signing",
        "The same for `autofund_lamports_per_24h_in_all`, which all users share: 0 unless changed.",
        retry=True,
    ),
    Reason.SESSION_BUSY: Said(
        "signing",
        "Settle what is open first, then fire again under a new executionId. A transaction that calls a program which "
        "only floors hold must be the only open one of its session key: what another brings in would be above them.",
    ),
    Reason.TRANSACTION_REFUSED: Said(
        "end",
        "Mend the rail: the `voided` entry's `detail` says how its transaction differs from what was authorized. Then "
        "fire again under a new executionId.",
    ),
    Reason.RAIL_UNAVAILABLE: Said(
        "end", "See the `voided` entry's `detail`, and fire again under a new executionId when the rail is back."
    ),
    Reason.TRANSACTION_FAILED: Said(
        "end", "See the `failed` entry's `detail`, which is what the chain said; fire again under a new executionId."
    ),
    Reason.TRANSACTION_DEAD: Said("end", "Fire again under a new executionId: this transaction can't land any more."),
}

TOP: Final = """\
<!-- Written by docs/reasons.py: change that or executor/reasons.py, and run it again. -->

# Reasons

Every no has a reason. They stand here in their order of precedence, which is that of the enum `executor.Reason` and of
the checks in the code: a refusal's `reason` is the first that applies, and its `checks` list all that do, each with its
limit and what was found. The first two are faults of the ledger or the clock; they are told as they are found, without
checks.

Five kinds of calls give reasons:

{calls}

**Who is told.** A refused fire and a voided, failed or dead attempt are entries, and the user's client gets each as an
`errored` event with its `reason`. Entries of refused fires end at 1,000 a wallet in 24 hours; more are only counted. A
refused activation changes and records nothing.

**Asking again.** A refusal's `retry_at_ms` is when time alone will have cured all of its checks; it is None where time
won't. A recorded answer is final for its executionId: ask again under a new one. A voided, failed or dead attempt keeps
its slot of the rolling window.

**Signing** has the same function decide once more, so it gives whatever a fire can, but for what the attempt itself has
settled: its executionId, its intent, its slot and its interval. A ledger or a clock that can't be trusted is no refusal
there but an exception, a `LedgerError`, and nothing may be sent.

{table}
"""


def page() -> str:
    """Return the page."""
    sentences = _sentences()
    calls = "\n".join(f"- *{name}*: {meaning};" for name, meaning in CALLS.items()).removesuffix(";") + "."
    rows = [["reason", *CALLS, "time may cure it"], ["---"] + [":-:"] * (len(CALLS) + 1)]
    rows += [[f"[`{reason}`](#{_anchor(reason)})", *_marks(SAID[reason])] for reason in Reason]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    sections = (
        f"\n## `{reason}`\n\n{sentences[reason]}\n\n{fill(SAID[reason].advice, WIDTH, break_on_hyphens=False)}\n"
        for reason in Reason
    )
    return TOP.format(calls=calls, table=table) + "".join(sections)


def _marks(said: Said) -> list[str]:
    return ["✓" if call in said.calls.split() else "" for call in CALLS] + ["✓" if said.retry else ""]


def _anchor(reason: Reason) -> str:
    return reason.lower()


def _sentences() -> dict[str, str]:
    """Return what stands below each member of the enum."""
    tree = ast.parse(Path(reasons.__file__).read_text("utf-8"))
    (enum,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    named = zip(enum.body, enum.body[1:], strict=False)
    return {
        member.targets[0].id: sentence.value.value
        for member, sentence in named
        if isinstance(member, ast.Assign)
        and isinstance(member.targets[0], ast.Name)
        and isinstance(sentence, ast.Expr)
        and isinstance(sentence.value, ast.Constant)
    }


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
