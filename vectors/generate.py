"""Writes the golden vectors: `python vectors/generate.py [FOLDER]`. The same every time.

Nothing here comes from the implementation under test: canonical JSON is the standard library's with sorted keys,
base58 and Ed25519 are written out below, and each expected answer is stated where its vector is made.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any

# Ed25519 (RFC 8032), slow and plain, so that wrong signatures can be made as well as right ones.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1)


def add(a, b):
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P


def times(number, point):
    total = IDENTITY
    while number:
        total = add(total, point) if number & 1 else total
        point, number = add(point, point), number >> 1
    return total


def point_of(y, odd_x):
    """Return the point with this y and parity of x; None if the curve has none."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT_OF_MINUS_1 % P
    if x * x % P != square:
        return None
    return (P - x if x & 1 != odd_x else x) % P, y


def pack(point):
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE = point_of(4 * pow(5, -1, P) % P, 0)


def small_points():
    """Return the eight points whose order divides 8."""
    y = 2
    while True:
        point, y = point_of(y, 0), y + 1
        torsion = times(L, point) if point else IDENTITY
        multiples = [times(k, torsion) for k in range(8)]
        if len(set(multiples)) == 8:
            return multiples


SMALL = small_points()
ORDER_8 = SMALL[1]
NOT_CANONICAL = [(y + P | sign << 255).to_bytes(32, "little") for y in (0, 1) for sign in (0, 1)] + [
    (1 | 1 << 255).to_bytes(32, "little"),
    (P - 1 | 1 << 255).to_bytes(32, "little"),
]
"""Other spellings of points of small order: y not reduced, or a sign on x = 0."""


def hashed(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


class Key:
    """An Ed25519 key pair, whose public point may carry a `twist` of small order."""

    def __init__(self, name, twist=IDENTITY):
        self.seed = hashlib.sha256(f"holdfire vectors: {name}".encode()).digest()
        digest = hashlib.sha512(self.seed).digest()
        self.scalar = int.from_bytes(digest[:32], "little") & (1 << 254) - 8 | 1 << 254
        self.prefix = digest[32:]
        self.public = pack(add(times(self.scalar, BASE), twist))
        self.address = base58(self.public)

    def sign(self, message, *, twist=IDENTITY, add_l=0):
        """Sign; R may carry a `twist` of small order, and S a multiple of L."""
        r = hashed(self.prefix, message) % L
        encoded_r = pack(add(times(r, BASE), twist))
        s = (r + hashed(encoded_r, self.public, message) * self.scalar) % L + add_l * L
        return encoded_r + s.to_bytes(32, "little")


ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(data):
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


# Permits and revocations

WALLET, SESSION, OTHER = Key("wallet"), Key("session"), Key("another wallet")
ISSUED, EXPIRES = "2026-05-02T12:00:00Z", "2026-08-01T00:00:00Z"
ISSUED_MS, EXPIRES_MS = 1_777_723_200_000, 1_785_542_400_000
NOW = ISSUED_MS + 1_000
PERMIT = {
    "agentId": "6f1c9a52-0d1e-4b7a-9d4c-2f3f5b8a7e10",
    "sessionPubkey": SESSION.address,
    "assetWhitelist": ["SOL", "USDC", "JTO"],
    "maxAmountPerExecutionUsd": 250,
    "expiresAt": EXPIRES,
    "issuedAt": ISSUED,
    "nonce": "a1b2c3d4e5f60718293a4b5c6d7e8f90",
}
REVOKED = "2026-05-03T09:30:00Z"
REVOCATION = {"nonce": PERMIT["nonce"], "revokedAt": REVOKED}
MINTS = [base58(hashlib.sha256(b"mint %d" % number).digest()) for number in range(51)]
RANDOM = random.Random("holdfire vectors")


def canonical(permit):
    return json.dumps(permit, sort_keys=True, separators=(",", ":")).encode()


def permit_id(wallet, permit):
    return hashlib.sha256(b"holdfire/permit/v1\0" + wallet + canonical(permit)).hexdigest()


def enclosed(envelope, wallet, text):
    domain = b"\xffsolana offchain"
    return {
        "raw": text,
        "offchain-v0": domain + b"\0" + bytes(32) + b"\0\1" + wallet + len(text).to_bytes(2, "little") + text,
        "offchain-v1": domain + b"\1\1" + wallet + text,
    }[envelope]


def signed(permit=PERMIT, key=WALLET, envelope="raw", **changes):
    """Return the transport of a signed permit, with `changes` made to it afterwards."""
    return {"permit": permit, **claim(permit, key, envelope), **changes}


def revoked(revocation=REVOCATION, key=WALLET, envelope="raw", **changes):
    """Return the transport of a signed revocation, with `changes` made to it afterwards."""
    return {"revocation": revocation, **claim(revocation, key, envelope), **changes}


def claim(document, key, envelope):
    signature = key.sign(enclosed(envelope, key.public, canonical(document)))
    named = {} if envelope == "raw" else {"envelope": envelope}
    return {"walletAddress": key.address, "signature": base58(signature), **named}


def without(document, *names):
    return {name: value for name, value in document.items() if name not in names}


def text_of(document):
    return json.dumps(document, ensure_ascii=False).encode()


FILES: dict[str, list[dict[str, Any]]] = {}


def vector(file, name, comment, request, expected, *flags):
    FILES.setdefault(file, []).append(
        {"id": f"{file}/{name}", "comment": comment, "flags": sorted(flags), "request": request, "expected": expected}
    )


def refusal(code):
    return {"ok": False, "error": code}


def spells(file, name, comment, data, permit, *flags):
    """`data` is a permit's JSON, whose canonical form is that of `permit`, or is refused with a code."""
    good = not isinstance(permit, str)
    expected = {"ok": True, "canonical": canonical(permit).hex()} if good else refusal(permit)
    vector(file, name, comment, {"op": "canonicalize", "input": data.hex()}, expected, *flags)


def verifies(file, name, comment, document, outcome, *flags, now=NOW, envelopes=None):
    """`document` (transport, or its bytes) verifies to the permit `outcome` of (wallet, permit), or is refused."""
    data = document if isinstance(document, bytes) else text_of(document)
    request = {"op": "verify_permit", "input": data.hex(), "now": now}
    if envelopes is not None:
        request["envelopes"] = envelopes
    expected = refusal(outcome) if isinstance(outcome, str) else {"ok": True, "permit_id": permit_id(*outcome)}
    vector(file, name, comment, request, expected, *flags)


def revokes(name, comment, document, outcome, *flags, envelopes=None):
    """`document` (transport, or its bytes) revokes the nonce `outcome` of (wallet, nonce), or is refused."""
    data = document if isinstance(document, bytes) else text_of(document)
    request = {"op": "verify_revocation", "input": data.hex()}
    if envelopes is not None:
        request["envelopes"] = envelopes
    good = not isinstance(outcome, str)
    expected = {"ok": True, "wallet": outcome[0], "nonce": outcome[1]} if good else refusal(outcome)
    vector("revocations", name, comment, request, expected, *flags)


def signs(name, comment, public_key, message, signature, ok, *flags):
    request = {"op": "verify_signature", "public_key": public_key.hex(), "message": message.hex()}
    vector("ed25519", name, comment, {**request, "signature": signature.hex()}, {"ok": ok}, *flags)


GOOD = (WALLET.public, PERMIT)


def with_amount(token):
    """Return the JSON of a permit whose amount is spelled `token`."""
    return text_of({**PERMIT, "maxAmountPerExecutionUsd": "AMOUNT"}).replace(b'"AMOUNT"', token.encode())


def make_canonical():
    file = "canonical"
    spells(file, "compact", "already canonical", canonical(PERMIT), PERMIT)
    spells(file, "spaced", "spaces after colons and commas", text_of(PERMIT), PERMIT)
    spells(file, "indented", "indented", json.dumps(PERMIT, indent=2).encode(), PERMIT)
    spells(
        file, "all-white-space", "every white space that JSON has", b" \t\r\n" + text_of(PERMIT) + b"\n\r\t ", PERMIT
    )
    names = list(PERMIT)
    for number in range(8):
        RANDOM.shuffle(names)
        shuffled = {name: PERMIT[name] for name in names}
        spells(file, f"key-order-{number}", "keys in another order", text_of(shuffled), PERMIT)
    escaped = text_of(PERMIT).replace(b'"SOL"', b'"\\u0053\\u004fL"').replace(b'"nonce"', b'"\\u006eonce"')
    spells(file, "escapes", "letters of a key and a value written as escapes", escaped, PERMIT)
    solidus = text_of(PERMIT).replace(b'"agentId"', b'"agent\\u0049d"')
    spells(file, "escaped-key", "a letter of a key written as an escape", solidus, PERMIT)
    for token, amount in (
        ("1", 1), ("0.01", 0.01), ("0.1", 0.1), ("0.10", 0.1), ("0.99", 0.99), ("1.15", 1.15), ("4.35", 4.35),
        ("250", 250), ("250.0", 250), ("250.00", 250), ("250.5", 250.5), ("250.50", 250.5), ("250.05", 250.05),
        ("999999999.99", 999999999.99), ("1000000000", 10**9), ("1000000000.00", 10**9), ("123456789.01", 123456789.01),
    ):  # fmt: skip
        permit = {**PERMIT, "maxAmountPerExecutionUsd": amount}
        spells(file, f"amount-{token}", f"the amount written {token}", with_amount(token), permit, "amount")
    for number in range(40):
        cents = RANDOM.randrange(1, 10 ** RANDOM.randrange(2, 12))
        amount = cents // 100 if cents % 100 == 0 else cents / 100
        token = f"{cents // 100}.{cents % 100:02}"
        permit = {**PERMIT, "maxAmountPerExecutionUsd": amount}
        spells(file, f"amount-random-{number}", f"the amount written {token}", with_amount(token), permit, "amount")
    for name, comment, change in (
        ("milliseconds", "times with milliseconds keep them", {"issuedAt": "2026-05-02T12:00:00.123Z"}),
        ("zero-milliseconds", "milliseconds of zero stay too", {"expiresAt": "2026-08-01T00:00:00.000Z"}),
        ("mints", "mints instead of symbols", {"assetWhitelist": MINTS[:3]}),
        ("mixed", "symbols and mints, in the user's order", {"assetWhitelist": ["z", MINTS[0], "A", "0"]}),
        ("case", "the case of symbols is kept", {"assetWhitelist": ["sol", "Usdc", "mSOL"]}),
        ("longest", "the longest permit there is", {"assetWhitelist": MINTS[:50], "nonce": "f" * 128}),
    ):
        permit = {**PERMIT, **change}
        spells(file, name, comment, text_of(permit), permit)


def make_encoding():
    file, good = "encoding", text_of(PERMIT)
    deep = b"[" * 8 + b"]" * 8

    def twice(key, first, second):
        return good.replace(json.dumps(key).encode() + b": " + first, second, 1)

    nonce = b'"a1b2c3d4e5f60718293a4b5c6d7e8f90"'
    for name, comment, data, code in (
        ("too-long", "16,385 bytes, all of it white space but the permit", good.ljust(16_385), "ENCODING_TOO_LONG"),
        ("bom", "a byte order mark before it", b"\xef\xbb\xbf" + good, "ENCODING_BOM"),
        ("utf-16-bom", "UTF-16 with a byte order mark", good.decode().encode("utf-16"), "ENCODING_NOT_UTF8"),
        ("utf-16", "UTF-16 without one: zero bytes between", good.decode().encode("utf-16-le"), "JSON_SYNTAX"),
        ("utf-32", "UTF-32", good.decode().encode("utf-32-le"), "JSON_SYNTAX"),
        ("latin-1", "a byte that is no UTF-8", good.replace(b"SOL", b"\xe9"), "ENCODING_NOT_UTF8"),
        ("overlong", "an overlong form of a slash", good.replace(b"SOL", b"\xc0\xaf"), "ENCODING_NOT_UTF8"),
        ("surrogate-bytes", "half a surrogate pair in UTF-8", good.replace(b"SOL", b"\xed\xa0\x80"), "ENCODING_NOT_UTF8"),
        ("beyond-unicode", "a code point past U+10FFFF", good.replace(b"SOL", b"\xf4\x90\x80\x80"), "ENCODING_NOT_UTF8"),
        ("cut-sequence", "ends inside a sequence", good + b"\xe2\x82", "ENCODING_NOT_UTF8"),
        ("empty", "nothing", b"", "JSON_SYNTAX"),
        ("white-space", "only white space", b"  \n", "JSON_SYNTAX"),
        ("cut", "its last byte is missing", good[:-1], "JSON_SYNTAX"),
        ("two-values", "a second value behind it", good + b" {}", "JSON_SYNTAX"),
        ("trailing-comma", "a comma before the end", good[:-1] + b",}", "JSON_SYNTAX"),
        ("trailing-zero-byte", "a zero byte behind it", good + b"\0", "JSON_SYNTAX"),
        ("single-quotes", "strings in single quotes", good.replace(b'"', b"'"), "JSON_SYNTAX"),
        ("comment", "a comment", b"/* */" + good, "JSON_SYNTAX"),
        ("form-feed", "a white space that JSON lacks", b"\f" + good, "JSON_SYNTAX"),
        ("trailing-form-feed", "a white space that JSON lacks, behind it", good + b"\f", "JSON_SYNTAX"),
        ("no-break-space", "U+00A0 before it", b"\xc2\xa0" + good, "JSON_SYNTAX"),
        ("newline-in-string", "a raw line break in a string", good.replace(b"SOL", b"S\nL"), "JSON_SYNTAX"),
        ("tab-in-string", "a raw tab in a string", good.replace(b"SOL", b"S\tL"), "JSON_SYNTAX"),
        ("bad-escape", "an escape that JSON lacks", good.replace(b"SOL", b"S\\x4fL"), "JSON_SYNTAX"),
        ("short-escape", "an escape of three digits", good.replace(b"SOL", b"S\\u04f"), "JSON_SYNTAX"),
        ("capital-literal", "True", with_amount("True"), "JSON_SYNTAX"),
        ("undefined", "undefined", with_amount("undefined"), "JSON_SYNTAX"),
        ("leading-zero", "a number with a leading zero", with_amount("0250"), "JSON_SYNTAX"),
        ("plus", "a number with a plus", with_amount("+250"), "JSON_SYNTAX"),
        ("no-digit-before-point", "a number that begins with a point", with_amount(".5"), "JSON_SYNTAX"),
        ("no-digit-after-point", "a number that ends with a point", with_amount("250."), "JSON_SYNTAX"),
        ("hexadecimal", "a hexadecimal number", with_amount("0xfa"), "JSON_SYNTAX"),
        ("digit-separator", "a number with an underscore", with_amount("2_50"), "JSON_SYNTAX"),
        ("nine-deep", "nine brackets open", b"[" * 9 + b"]" * 9, "JSON_TOO_DEEP"),
        ("nine-deep-objects", "nine braces open", b'{"a":' * 9 + b"1" + b"}" * 9, "JSON_TOO_DEEP"),
        ("very-deep", "16,000 brackets open", b"[" * 16_000, "JSON_TOO_DEEP"),
        ("eight-deep", "eight brackets are read; it is no permit", deep, "SCHEMA_NOT_AN_OBJECT"),
        ("brackets-in-string", "brackets in a string aren't depth", b'"' + b"[" * 50 + b'"', "SCHEMA_NOT_AN_OBJECT"),
        ("nan", "NaN", with_amount("NaN"), "JSON_NUMBER_FORM"),
        ("infinity", "Infinity", with_amount("Infinity"), "JSON_NUMBER_FORM"),
        ("minus-infinity", "-Infinity", with_amount("-Infinity"), "JSON_NUMBER_FORM"),
        ("exponent", "an exponent", with_amount("25e1"), "JSON_NUMBER_FORM"),
        ("capital-exponent", "a capital exponent", with_amount("2.5E2"), "JSON_NUMBER_FORM"),
        ("zero-exponent", "an exponent of zero", with_amount("250e0"), "JSON_NUMBER_FORM"),
        ("huge-exponent", "a number beyond doubles", with_amount("1e400"), "JSON_NUMBER_FORM"),
        ("long-whole", "33 digits", with_amount("1" * 33), "JSON_NUMBER_FORM"),
        ("long-fraction", "33 characters", with_amount("1." + "0" * 31), "JSON_NUMBER_FORM"),
        ("very-long-number", "5,000 digits", with_amount("1" * 5_000), "JSON_NUMBER_FORM"),
        ("high-surrogate", "an escaped high surrogate alone", good.replace(b"SOL", b"\\ud83d"), "JSON_LONE_SURROGATE"),
        ("low-surrogate", "an escaped low surrogate alone", good.replace(b"SOL", b"\\ude00"), "JSON_LONE_SURROGATE"),
        ("swapped-surrogates", "a pair the wrong way round", good.replace(b"SOL", b"\\ude00\\ud83d"), "JSON_LONE_SURROGATE"),
        ("surrogate-key", "half a pair in a key", good.replace(b"agentId", b"\\ud800"), "JSON_LONE_SURROGATE"),
        ("surrogate-pair", "a whole pair is text, but no symbol", good.replace(b"SOL", b"\\ud83d\\ude00"), "SCHEMA_ASSET_WHITELIST"),
        ("duplicate", "a key twice, the same value", twice("nonce", nonce, b'"nonce": ' + nonce + b', "nonce": ' + nonce), "JSON_DUPLICATE_KEY"),
        ("duplicate-escaped", "a key twice, once as an escape", twice("nonce", nonce, b'"\\u006eonce": "", "nonce": ' + nonce), "JSON_DUPLICATE_KEY"),
        ("duplicate-amount", "the wallet shows 250, the executor uses 1,000,000", with_amount('250, "maxAmountPerExecutionUsd": 1000000'), "JSON_DUPLICATE_KEY"),
        ("duplicate-unknown", "an unknown key twice, one level down", with_amount('{"a": 1, "a": 2}'), "JSON_DUPLICATE_KEY"),
    ):  # fmt: skip
        spells(file, name, comment, data, code)
    spells(file, "longest", "16,384 bytes", good.ljust(16_384), PERMIT)


def make_schema():
    file = "schema"
    for name in PERMIT:
        spells(file, f"missing-{name}", f"no {name}", text_of(without(PERMIT, name)), "SCHEMA_MISSING_KEY")
    for name in ("admin", "agentid", "AgentId", "agent_id", "", "agentId ", "__proto__", "constructor", "maxAmount"):
        extra = {**PERMIT, name: 1}
        spells(file, f"unknown-{name or 'empty'}", f"the key {name!r} besides", text_of(extra), "SCHEMA_UNKNOWN_KEY")
    for name, value in (("null", None), ("array", [PERMIT]), ("string", "permit"), ("number", 1), ("true", True)):
        spells(file, f"not-an-object-{name}", f"a {name} instead", text_of(value), "SCHEMA_NOT_AN_OBJECT")
    uuid = PERMIT["agentId"]
    key32 = PERMIT["sessionPubkey"]
    wrong: dict[str, tuple[str, list[Any]]] = {
        "agentId": (
            "SCHEMA_AGENT_ID",
            [uuid.upper(), uuid.replace("-", ""), f"{{{uuid}}}", f"urn:uuid:{uuid}", uuid[:-1], uuid + "0", uuid + "\n",
             " " + uuid, uuid.replace("f", "g"), uuid.replace("-", "_"), "", None, 7, True, [uuid]],
        ),
        "sessionPubkey": (
            "SCHEMA_SESSION_PUBKEY",
            ["", key32[:-1] + "0", key32[:-1] + "O", key32[:-1] + "I", key32[:-1] + "l", key32 + " ", key32 + "\n",
             " " + key32, key32 + "\u00a0", key32 + "\u2003", key32 + "\u0085", "1" + key32, base58(b"\xff" * 31), base58(b"\1" * 33), "z" * 44,
             "1" * 31, "1" * 33, "1" * 44, "2" * 32, None, 7, [key32]],
        ),
        "assetWhitelist": (
            "SCHEMA_ASSET_WHITELIST",
            [[], MINTS, ["SOL", "SOL"], ["SOL", "sol"], ["SOL", "USDC", "Sol"], [MINTS[0], MINTS[0].lower()] if base58 else [], [""], ["A" * 17],
             ["A" * 31], ["z" * 44], ["US-DC"], ["US DC"], ["SOL "], ["SOL\n"], ["SOL", None], ["SOL", 7], ["SOL", ["USDC"]],
             ["\uff33\uff2f\uff2c"], ["S\u00d6L"], "SOL", None, {"0": "SOL"}, 7, True],
        ),
        "expiresAt": (
            "SCHEMA_EXPIRES_AT",
            ["2026-08-01", "2026-08-01T00:00:00", "2026-08-01T00:00:00z", "2026-08-01t00:00:00Z", "2026-08-01 00:00:00Z",
             "2026-08-01T00:00Z", "2026-08-01T00:00:00+00:00", "2026-08-01T00:00:00-00:00", "2026-08-01T00:00:00.0Z",
             "2026-08-01T00:00:00.00Z", "2026-08-01T00:00:00.0000Z", "2026-08-01T00:00:00,000Z", "2026-02-29T00:00:00Z",
             "2100-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-00-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-08-00T00:00:00Z",
             "2026-08-32T00:00:00Z", "2026-08-01T24:00:00Z", "2026-08-01T00:60:00Z", "2026-12-31T23:59:60Z", "0000-01-01T00:00:00Z",
             "+2026-08-01T00:00:00Z", "26-08-01T00:00:00Z", " 2026-08-01T00:00:00Z", "2026-08-01T00:00:00Z\n",
             "\uff12026-08-01T00:00:00Z", "", None, 1785542400, True],
        ),
        "issuedAt": (
            "SCHEMA_ISSUED_AT",
            ["2026-05-02", "2026-05-02T12:00:00", "2026-05-02T12:00:00.1Z", "2026-02-30T12:00:00Z", "2026-05-02T12:00:60Z", "", None, 0],
        ),
        "nonce": (
            "SCHEMA_NONCE",
            ["", "a" * 30, "a" * 31, "a" * 33, "a" * 127, "a" * 129, "a" * 130, "A" * 32, "g" * 32, "0x" + "a" * 30, "a" * 32 + "\n",
             " " + "a" * 32, "\uff41" * 32, None, 7, ["a" * 32]],
        ),
    }  # fmt: skip
    for field, (code, values) in wrong.items():
        for number, value in enumerate(values):
            broken = {**PERMIT, field: value}
            spells(file, f"{field}-{number}", f"{field} is {_shown(value)}", text_of(broken), code, field)
    for place in (1, 10, 15, 20, 25):
        value = uuid[:place] + uuid[place].upper() + uuid[place + 1 :]
        broken = {**PERMIT, "agentId": value}
        spells(file, f"agentId-upper-{place}", f"agentId is {value}", text_of(broken), "SCHEMA_AGENT_ID", "agentId")
    bad_id = {**PERMIT, "agentId": ""}
    bad_and_short = without(bad_id, "nonce")
    for name, comment, document, code in (
        ("missing-before-unknown", "no nonce, and an unknown key", {**bad_and_short, "a": 1}, "SCHEMA_MISSING_KEY"),
        ("missing-before-rule", "no nonce, and no agentId's form", bad_and_short, "SCHEMA_MISSING_KEY"),
        ("unknown-before-rule", "an unknown key, and no agentId's form", {**bad_id, "a": 1}, "SCHEMA_UNKNOWN_KEY"),
        ("first-rule", "no agentId's and no nonce's form", {**bad_id, "nonce": ""}, "SCHEMA_AGENT_ID"),
        (
            "first-rule-whatever-stands-first",
            "the same, nonce first",
            {"nonce": "", **bad_and_short},
            "SCHEMA_AGENT_ID",
        ),
        (
            "rule-before-time-order",
            "no nonce's form, and it ends first",
            {**PERMIT, "expiresAt": ISSUED, "nonce": ""},
            "SCHEMA_NONCE",
        ),
    ):
        spells(file, f"order-{name}", comment, text_of(document), code, "order")
    for number, token in enumerate(
        ("0", "-0", "0.00", "-1", "-0.01", "0.001", "250.001", "250.000", "0.009", "1000000000.01", "1000000001",
         '"250"', "true", "null", "[250]", '{"usd": 250}', '""')
    ):  # fmt: skip
        spells(file, f"amount-{number}", f"the amount is {token}", with_amount(token), "SCHEMA_MAX_AMOUNT", "amount")
    for name, change in (
        ("symbol-1", {"assetWhitelist": ["a"]}),
        ("symbol-16", {"assetWhitelist": ["A" * 16]}),
        ("assets-50", {"assetWhitelist": [f"A{number}" for number in range(50)]}),
        ("nonce-32", {"nonce": "0" * 32}),
        ("nonce-34", {"nonce": "0" * 34}),
        ("nonce-128", {"nonce": "0" * 128}),
        ("leap-day", {"expiresAt": "2028-02-29T23:59:59Z"}),
        ("last-instant", {"expiresAt": "9999-12-31T23:59:59.999Z"}),
        ("first-year", {"issuedAt": "0001-01-01T00:00:00Z"}),
        ("one-millisecond", {"expiresAt": "2026-05-02T12:00:00.001Z"}),
        ("nil-agent", {"agentId": "00000000-0000-0000-0000-000000000000"}),
    ):
        permit = {**PERMIT, **change}
        spells(file, f"edge-{name}", "the inner side of an edge", text_of(permit), permit, "edge")
    for name, change in (
        ("same", {"expiresAt": ISSUED}),
        ("same-spelled-otherwise", {"expiresAt": "2026-05-02T12:00:00.000Z"}),
        ("before", {"expiresAt": "2026-05-02T11:59:59.999Z"}),
    ):
        spells(
            file, f"time-order-{name}", "it ends before it begins", text_of({**PERMIT, **change}), "SCHEMA_TIME_ORDER"
        )


def _shown(value):
    return ascii(value) if len(ascii(value)) < 60 else ascii(value)[:57] + "..."


def make_transport():
    file, good = "transport", signed()
    verifies(file, "good", "signed and valid", good, GOOD)
    verifies(file, "compact", "without white space", canonical(good), GOOD)
    verifies(file, "explicit-raw", "the envelope raw, spelled out", {**good, "envelope": "raw"}, GOOD)
    verifies(file, "other-key-order", "keys in another order", dict(reversed(good.items())), GOOD)
    for name in good:
        verifies(file, f"missing-{name}", f"no {name}", without(good, name), "SCHEMA_MISSING_KEY")
    for name in ("admin", "wallet", "publicKey", "permitId"):
        verifies(file, f"unknown-{name}", f"the key {name} besides", {**good, name: 1}, "SCHEMA_UNKNOWN_KEY")
    verifies(file, "bare-permit", "the permit without transport", PERMIT, "SCHEMA_MISSING_KEY")
    for name, value in (("null", None), ("string", json.dumps(PERMIT)), ("array", [PERMIT]), ("number", 1)):
        verifies(file, f"permit-{name}", f"the permit is a {name}", {**good, "permit": value}, "SCHEMA_NOT_AN_OBJECT")
        verifies(file, f"document-{name}", f"the document is a {name}", text_of(value), "SCHEMA_NOT_AN_OBJECT")
    signature = good["signature"]
    for field, code, values in (
        ("walletAddress", "SCHEMA_WALLET_ADDRESS", ["", WALLET.address + " ", WALLET.address.replace(WALLET.address[3], "0"), base58(b"\1" * 33), None, 7]),
        ("signature", "SCHEMA_SIGNATURE", ["", signature + " ", signature[:-1] + "0", base58(b"\xff" * 63), base58(b"\1" * 65), "1" * 63, "1" * 88, "z" * 88, None, 7]),
        ("envelope", "SCHEMA_ENVELOPE", ["", "RAW", "raw ", "offchain", "offchain-v2", None, 0, ["raw"]]),
    ):  # fmt: skip
        for number, value in enumerate(values):
            verifies(file, f"{field}-{number}", f"{field} is {_shown(value)}", {**good, field: value}, code, field)
    ends_first = {**PERMIT, "expiresAt": ISSUED}
    for name, comment, changes, code in (
        (
            "missing-before-time-order",
            "no signature, and the permit ends first",
            {"permit": ends_first, "signature": ...},
            "SCHEMA_MISSING_KEY",
        ),
        (
            "unknown-before-time-order",
            "an unknown key, and the permit ends first",
            {"permit": ends_first, "a": 1},
            "SCHEMA_UNKNOWN_KEY",
        ),
        (
            "outer-missing-before-inner-unknown",
            "no signature, and an unknown key in the permit",
            {"permit": {**PERMIT, "a": 1}, "signature": ...},
            "SCHEMA_MISSING_KEY",
        ),
        (
            "object-before-missing",
            "the permit is no object, and there is no signature",
            {"permit": 1, "signature": ...},
            "SCHEMA_NOT_AN_OBJECT",
        ),
        (
            "permit-before-transport",
            "no nonce's form, and no wallet's",
            {"permit": {**PERMIT, "nonce": ""}, "walletAddress": ""},
            "SCHEMA_NONCE",
        ),
        (
            "time-order-before-transport",
            "the permit ends first, and no wallet's form",
            {"permit": ends_first, "walletAddress": ""},
            "SCHEMA_TIME_ORDER",
        ),
        (
            "wallet-before-signature",
            "no wallet's and no signature's form",
            {"walletAddress": "", "signature": ""},
            "SCHEMA_WALLET_ADDRESS",
        ),
        (
            "signature-before-envelope",
            "63 bytes of signature, and no envelope",
            {"signature": base58(b"\xff" * 63), "envelope": ""},
            "SCHEMA_SIGNATURE",
        ),
        (
            "schema-before-key",
            "a wallet of small order, and no envelope",
            {"walletAddress": "1" * 32, "envelope": ""},
            "SCHEMA_ENVELOPE",
        ),
        (
            "key-before-signature",
            "a wallet of small order, which didn't sign",
            {"walletAddress": "1" * 32},
            "KEY_WALLET_ORDER",
        ),
        (
            "session-before-wallet",
            "both keys of small order",
            {"permit": {**PERMIT, "sessionPubkey": "1" * 32}, "walletAddress": "1" * 32},
            "KEY_SESSION_SMALL_ORDER",
        ),
    ):
        document = {key: value for key, value in {**good, **changes}.items() if value is not ...}
        verifies(file, f"order-{name}", comment, document, code, "order")
    late = signed(signature=base58(OTHER.sign(canonical(PERMIT))))
    verifies(
        file,
        "order-signature-before-time",
        "another's signature, after its end",
        late,
        "SIGNATURE_INVALID",
        "order",
        now=EXPIRES_MS,
    )
    verifies(
        file,
        "order-envelope-before-signature",
        "another's signature in an envelope that isn't allowed",
        late,
        "SIGNATURE_ENVELOPE_NOT_ALLOWED",
        "order",
        envelopes=["offchain-v0"],
    )
    inside = text_of(good).replace(b'"nonce"', b'"nonce": "", "nonce"')
    verifies(file, "duplicate-inside", "a key of the permit twice", inside, "JSON_DUPLICATE_KEY")
    outside = text_of(good).replace(b'"walletAddress"', b'"walletAddress": "", "walletAddress"')
    verifies(file, "duplicate-outside", "a key of the transport twice", outside, "JSON_DUPLICATE_KEY")
    for field, value in (("maxAmountPerExecutionUsd", 1_000_000), ("agentId", "6f1c9a52-0d1e-4b7a-9d4c-2f3f5b8a7e11"),
                         ("assetWhitelist", ["SOL", "USDC", "JTO", "BONK"]), ("assetWhitelist", ["USDC", "SOL", "JTO"]),
                         ("sessionPubkey", OTHER.address), ("expiresAt", "2026-08-02T00:00:00Z"),
                         ("issuedAt", "2026-05-02T12:00:00.000Z"), ("nonce", "b" * 32)):  # fmt: skip
        changed = {**good, "permit": {**PERMIT, field: value}}
        verifies(
            file, f"changed-{field}-{_shown(value)}", f"{field} was changed after signing", changed, "SIGNATURE_INVALID"
        )


def make_keys():
    file = "keys"
    for number, point in enumerate(SMALL):
        address = base58(pack(point))
        comment = f"a point of small order: {number} times one of order 8"
        verifies(
            file, f"wallet-small-{number}", comment, signed(walletAddress=address), "KEY_WALLET_ORDER", "small-order"
        )
        permit = {**PERMIT, "sessionPubkey": address}
        verifies(file, f"session-small-{number}", comment, signed(permit), "KEY_SESSION_SMALL_ORDER", "small-order")
    for number, encoded in enumerate(NOT_CANONICAL):
        unreduced = int.from_bytes(encoded, "little") & (1 << 255) - 1 >= P
        comment = "another spelling of a point of small order"
        codes = ("ENCODING", "ENCODING") if unreduced else ("ORDER", "SMALL_ORDER")
        address = base58(encoded)
        verifies(
            file, f"wallet-spelled-otherwise-{number}", comment, signed(walletAddress=address), f"KEY_WALLET_{codes[0]}"
        )
        permit = {**PERMIT, "sessionPubkey": address}
        verifies(file, f"session-spelled-otherwise-{number}", comment, signed(permit), f"KEY_SESSION_{codes[1]}")
    for number in range(2, 19):
        encoded = (P + number).to_bytes(32, "little")
        comment = f"y = p + {number}"
        verifies(
            file, f"wallet-unreduced-{number}", comment, signed(walletAddress=base58(encoded)), "KEY_WALLET_ENCODING"
        )
    for number in (2, 18):
        permit = {**PERMIT, "sessionPubkey": base58((P + number).to_bytes(32, "little"))}
        verifies(file, f"session-unreduced-{number}", f"y = p + {number}", signed(permit), "KEY_SESSION_ENCODING")
    for number in range(1, 8):
        twisted = Key("wallet", twist=SMALL[number])
        comment = "the wallet's point plus one of small order: signed for, but not of prime order"
        verifies(file, f"wallet-mixed-{number}", comment, signed(key=twisted), "KEY_WALLET_ORDER", "mixed-order")
        permit = {**PERMIT, "sessionPubkey": Key("session", twist=SMALL[number]).address}
        comment = "a session key of mixed order is only not of small order: its owner can sign for it"
        verifies(file, f"session-mixed-{number}", comment, signed(permit), (WALLET.public, permit), "mixed-order")
    no_point = next(y for y in range(2, 99) if point_of(y, 0) is None)
    address = base58(no_point.to_bytes(32, "little"))
    verifies(file, "wallet-no-point", f"no point has y = {no_point}", signed(walletAddress=address), "KEY_WALLET_ORDER")
    verifies(
        file,
        "wallet-other",
        "another wallet than the one that signed",
        signed(walletAddress=OTHER.address),
        "SIGNATURE_INVALID",
    )
    verifies(
        file, "wallet-of-other", "signed by another wallet, which says so", signed(key=OTHER), (OTHER.public, PERMIT)
    )
    forged = signed(walletAddress="1" * 32, signature=base58(pack(IDENTITY) + bytes(32)))
    verifies(
        file,
        "all-ones",
        "for this address a lax verifier takes this signature over anything",
        forged,
        "KEY_WALLET_ORDER",
        "small-order",
    )


def make_ed25519():
    message = b"a message"
    key = WALLET
    good = key.sign(message)
    signs("good", "right", key.public, message, good, True)
    signs("empty-message", "right, over nothing", key.public, b"", key.sign(b""), True)
    signs("long-message", "right, over 10,000 bytes", key.public, bytes(10_000), key.sign(bytes(10_000)), True)
    for number in range(10):
        other, text = Key(f"random {number}"), RANDOM.randbytes(number * 7)
        signs(f"random-{number}", "right", other.public, text, other.sign(text), True)
        signs(
            f"random-other-message-{number}",
            "over another message",
            other.public,
            text + b"\0",
            other.sign(text),
            False,
        )
    signs("other-key", "another key's", OTHER.public, message, good, False)
    for bit in (0, 1, 100, 254, 255, 256, 300, 508, 511):
        changed = (int.from_bytes(good, "little") ^ 1 << bit).to_bytes(64, "little")
        signs(f"flipped-{bit}", f"bit {bit} of the signature flipped", key.public, message, changed, False)
    for number in (1, 2, 3, 8, 15):
        signs(
            f"s-plus-{number}-l", f"S plus {number} L", key.public, message, key.sign(message, add_l=number), False, "S"
        )
    l_itself = good[:32] + L.to_bytes(32, "little")
    signs("s-is-l", "S = L", key.public, message, l_itself, False, "S")
    signs("s-all-ones", "S is all ones", key.public, message, good[:32] + b"\xff" * 32, False, "S")
    signs("zeros", "64 zero bytes", key.public, message, bytes(64), False)
    for number, point in enumerate(SMALL):
        public = pack(point)
        # With A of small order, R = S·B - k·A holds for S = 0 and some R of small order, whatever was signed.
        for other, r_point in enumerate(SMALL):
            signature = pack(r_point) + bytes(32)
            k = hashed(pack(r_point), public, message) % L
            if add(r_point, times(k, point)) == IDENTITY:
                comment = "A and R of small order: the equation holds, and nobody's key signed"
                signs(
                    f"small-a-{number}-small-r-{other}",
                    comment,
                    public,
                    message,
                    signature,
                    False,
                    "small-order-A",
                    "small-order-R",
                )
        s = RANDOM.randrange(L)
        r_point = add(times(s, BASE), times(8 - number if number else 0, point))
        signature = pack(r_point) + s.to_bytes(32, "little")
        signs(f"small-a-{number}", "A of small order, R not", public, message, signature, False, "small-order-A")
        # With R of small order, S = k·a; the equation holds with the cofactor.
        encoded_r = pack(point)
        s = hashed(encoded_r, key.public, message) * key.scalar % L
        signature = encoded_r + s.to_bytes(32, "little")
        signs(f"small-r-{number}", "R of small order", key.public, message, signature, False, "small-order-R")
    for number, encoded in enumerate(NOT_CANONICAL):
        signs(
            f"a-spelled-otherwise-{number}",
            "A spelled otherwise, of small order",
            encoded,
            message,
            pack(IDENTITY) + bytes(32),
            False,
            "A",
        )
        signs(
            f"r-spelled-otherwise-{number}", "R spelled otherwise", key.public, message, encoded + good[32:], False, "R"
        )
    for number in range(1, 8):
        signature = key.sign(message, twist=SMALL[number])
        signs(
            f"cofactored-only-r-{number}",
            "R plus a point of small order: valid only with the cofactor",
            key.public,
            message,
            signature,
            False,
            "cofactored",
            "mixed-order-R",
        )
        twisted = Key("wallet", twist=SMALL[number])
        text, tries = b"", 0
        while True:
            text, tries = b"mixed %d" % tries, tries + 1
            signature = twisted.sign(text)
            k = hashed(signature[:32], twisted.public, text) % L
            if times(k, SMALL[number]) == IDENTITY:
                break
        signs(
            f"mixed-a-{number}",
            "A of mixed order, and the equation holds without the cofactor",
            twisted.public,
            text,
            signature,
            True,
            "mixed-order-A",
        )
        while times(hashed(signature[:32], twisted.public, text) % L, SMALL[number]) == IDENTITY:
            text, tries = b"mixed %d" % tries, tries + 1
            signature = twisted.sign(text)
        signs(
            f"mixed-a-cofactored-{number}",
            "A of mixed order, and it holds only with the cofactor",
            twisted.public,
            text,
            signature,
            False,
            "cofactored",
            "mixed-order-A",
        )
    no_point = next(y for y in range(2, 99) if point_of(y, 0) is None).to_bytes(32, "little")
    signs("a-no-point", "A is no point", no_point, message, good, False, "A")
    signs("r-no-point", "R is no point", key.public, message, no_point + good[32:], False, "R")
    for name, public, signature in (
        ("short-key", key.public[:31], good),
        ("long-key", key.public + b"\0", good),
        ("short-signature", key.public, good[:63]),
        ("long-signature", key.public, good + b"\0"),
        ("no-signature", key.public, b""),
        ("no-key", b"", good),
    ):
        signs(name, "the wrong length", public, message, signature, False, "length")


def make_envelopes():
    file, text = "envelopes", canonical(PERMIT)
    everything = ["raw", "offchain-v0", "offchain-v1"]
    for envelope in everything:
        document = signed(envelope=envelope)
        verifies(file, f"good-{envelope}", "signed so, and said so", document, GOOD)
        verifies(file, f"alone-{envelope}", "the only one allowed", document, GOOD, envelopes=[envelope])
        others = [each for each in everything if each != envelope]
        verifies(
            file,
            f"others-{envelope}",
            "only others are allowed",
            document,
            "SIGNATURE_ENVELOPE_NOT_ALLOWED",
            envelopes=others,
        )
        verifies(file, f"none-{envelope}", "none is allowed", document, "SIGNATURE_ENVELOPE_NOT_ALLOWED", envelopes=[])
        for other in others:
            verifies(
                file,
                f"{envelope}-as-{other}",
                f"signed {envelope}, said {other}",
                {**document, "envelope": other},
                "SIGNATURE_INVALID",
            )

    def said(envelope, message, name, comment):
        document = signed(signature=base58(WALLET.sign(message)), envelope="raw")
        verifies(file, name, comment, {**document, "envelope": envelope}, "SIGNATURE_INVALID")

    v0, v1 = enclosed("offchain-v0", WALLET.public, text), enclosed("offchain-v1", WALLET.public, text)
    for name, comment, message in (
        ("no-domain", "without the 0xff", v0[1:]),
        ("wrong-domain", "another domain", b"\xffsolana onchain!" + v0[16:]),
        ("version-1-header", "version 1 in a version 0 header", v0[:16] + b"\1" + v0[17:]),
        ("application", "another application domain", v0[:17] + b"\1" * 32 + v0[49:]),
        ("format-1", "format 1 (UTF-8)", v0[:49] + b"\1" + v0[50:]),
        ("format-2", "format 2 (long UTF-8)", v0[:49] + b"\2" + v0[50:]),
        ("no-signers", "no signer", v0[:50] + b"\0" + v0[83:]),
        ("two-signers", "a second signer", v0[:50] + b"\2" + v0[51:83] + OTHER.public + v0[83:]),
        ("wrong-signer", "another signer in the header", v0[:51] + OTHER.public + v0[83:]),
        ("length-short", "a length of one less", v0[:83] + (len(text) - 1).to_bytes(2, "little") + text),
        ("length-long", "a length of one more", v0[:83] + (len(text) + 1).to_bytes(2, "little") + text),
        ("length-big-endian", "the length big-endian", v0[:83] + len(text).to_bytes(2, "big") + text),
        ("trailing", "a byte behind it", v0 + b"\0"),
        ("trailing-newline", "a line break behind it", v0 + b"\n"),
        ("cut", "its last byte missing", v0[:-1]),
        ("header-alone", "the header without the text", v0[:85]),
    ):
        said("offchain-v0", message, f"v0-{name}", comment)
    for name, comment, message in (
        ("no-domain", "without the 0xff", v1[1:]),
        ("version-0", "version 0", v1[:16] + b"\0" + v1[17:]),
        ("version-2", "version 2", v1[:16] + b"\2" + v1[17:]),
        ("no-signers", "no signer", v1[:17] + b"\0" + v1[50:]),
        (
            "two-signers",
            "a second signer, sorted",
            v1[:17] + b"\2" + b"".join(sorted([WALLET.public, OTHER.public])) + text,
        ),
        ("twice-the-signer", "the same signer twice", v1[:17] + b"\2" + WALLET.public * 2 + text),
        ("wrong-signer", "another signer", v1[:18] + OTHER.public + text),
        ("length", "a length, as version 0 has it", v1[:50] + len(text).to_bytes(2, "little") + text),
        ("trailing", "a byte behind it", v1 + b"\0"),
        ("cut", "its last byte missing", v1[:-1]),
    ):
        said("offchain-v1", message, f"v1-{name}", comment)
    for name, comment, message in (
        ("spaced", "signed with white space", text_of(PERMIT)),
        ("trailing-newline", "signed with a line break behind it", text + b"\n"),
        ("bom", "signed with a byte order mark", b"\xef\xbb\xbf" + text),
        ("hash", "signed over its SHA-256", hashlib.sha256(text).digest()),
        ("hex", "signed as hex", text.hex().encode()),
        ("unsorted", "signed with its keys unsorted", json.dumps(PERMIT, separators=(",", ":")).encode()),
        ("fraction", "signed with 250.0", text.replace(b":250,", b":250.0,")),
        ("prefix", "signed with words before it", b"Please sign: " + text),
    ):
        said("raw", message, f"raw-{name}", comment)

    def of_length(length):
        """A permit whose canonical form has this length."""
        assets = MINTS[:16]
        spare = length - len(canonical({**PERMIT, "assetWhitelist": assets, "nonce": "a" * 32}))
        filler = [f"{number:04}" for number in range(spare // 7)]
        permit = {**PERMIT, "assetWhitelist": [*assets, *filler], "nonce": "a" * 32}
        while len(canonical(permit)) < length:
            permit["assetWhitelist"][-1] += "x"
        return permit

    for length, fits in ((1_146, True), (1_147, True), (1_148, False), (1_200, False)):
        permit = of_length(length)
        outcome = (WALLET.public, permit) if fits else "SIGNATURE_ENVELOPE_TOO_LONG"
        verifies(
            file,
            f"v0-length-{length}",
            f"a canonical form of {length} bytes",
            signed(permit, envelope="offchain-v0"),
            outcome,
        )
        verifies(
            file,
            f"v1-length-{length}",
            "version 1 has no such bound",
            signed(permit, envelope="offchain-v1"),
            (WALLET.public, permit),
        )


def make_time():
    file, good = "time", signed()
    day = 86_400_000
    for name, now, outcome in (
        ("long-before", 0, "TIME_NOT_YET_VALID"),
        ("just-before", ISSUED_MS - 1, "TIME_NOT_YET_VALID"),
        ("at-issue", ISSUED_MS, GOOD),
        ("just-after-issue", ISSUED_MS + 1, GOOD),
        ("midway", (ISSUED_MS + EXPIRES_MS) // 2, GOOD),
        ("just-before-expiry", EXPIRES_MS - 1, GOOD),
        ("at-expiry", EXPIRES_MS, "TIME_EXPIRED"),
        ("just-after-expiry", EXPIRES_MS + 1, "TIME_EXPIRED"),
        ("long-after", EXPIRES_MS + 10**12, "TIME_EXPIRED"),
        ("not-judged", None, GOOD),
    ):
        verifies(file, name, f"at {now}", good, outcome, now=now)
    for name, change, now, good_then in (
        ("ms-at-issue", {"issuedAt": "2026-05-02T12:00:00.500Z"}, ISSUED_MS + 500, True),
        ("ms-before-issue", {"issuedAt": "2026-05-02T12:00:00.500Z"}, ISSUED_MS + 499, False),
        ("ms-before-expiry", {"expiresAt": "2026-08-01T00:00:00.001Z"}, EXPIRES_MS, True),
        ("ms-at-expiry", {"expiresAt": "2026-08-01T00:00:00.001Z"}, EXPIRES_MS + 1, False),
        ("before-1970", {"issuedAt": "1969-12-31T23:59:59Z", "expiresAt": "1970-01-02T00:00:00Z"}, -1_000, True),
        (
            "before-before-1970",
            {"issuedAt": "1969-12-31T23:59:59Z", "expiresAt": "1970-01-02T00:00:00Z"},
            -1_001,
            False,
        ),
        (
            "leap-day",
            {"issuedAt": "2028-02-28T00:00:00Z", "expiresAt": "2028-02-29T00:00:01Z"},
            1_835_395_200_000,
            True,
        ),
    ):
        permit = {**PERMIT, **change}
        code = "TIME_EXPIRED" if "expiry" in name else "TIME_NOT_YET_VALID"
        verifies(file, name, f"at {now}", signed(permit), (WALLET.public, permit) if good_then else code, now=now)
    for name, expires, fits in (
        ("366-days", "2027-05-03T12:00:00Z", True),
        ("366-days-and-a-millisecond", "2027-05-03T12:00:00.001Z", False),
        ("ten-years", "2036-05-02T12:00:00Z", False),
    ):
        permit = {**PERMIT, "expiresAt": expires}
        outcome = (WALLET.public, permit) if fits else "TIME_LIFETIME_TOO_LONG"
        verifies(file, f"lifetime-{name}", "how long it holds", signed(permit), outcome)
        verifies(
            file,
            f"lifetime-{name}-not-judged",
            "the lifetime is judged without a time too",
            signed(permit),
            outcome,
            now=None,
        )
    over = {**PERMIT, "issuedAt": "2020-01-01T00:00:00Z", "expiresAt": "2020-01-01T00:00:01Z"}
    verifies(file, "over-long-ago", "what was signed stays provable", signed(over), (WALLET.public, over), now=None)
    verifies(file, "a-day-later", "the next day", good, GOOD, now=ISSUED_MS + day)


def make_revocations():
    file, good, outcome = "revocations", revoked(), (WALLET.address, REVOCATION["nonce"])
    everything = ["raw", "offchain-v0", "offchain-v1"]
    for envelope in everything:
        document = revoked(envelope=envelope)
        others = [each for each in everything if each != envelope]
        refused = "SIGNATURE_ENVELOPE_NOT_ALLOWED"
        revokes(f"good-{envelope}", "signed so, and said so", document, outcome)
        revokes(f"others-{envelope}", "only others are allowed", document, refused, envelopes=others)
    reordered = {**dict(reversed(good.items())), "revocation": dict(reversed(REVOCATION.items()))}
    revokes("explicit-raw", "the envelope raw, spelled out", {**good, "envelope": "raw"}, outcome)
    revokes("other-key-order", "keys in another order", reordered, outcome)
    revokes("of-other", "the same nonce, of another wallet", revoked(key=OTHER), (OTHER.address, REVOCATION["nonce"]))
    for name, change in (
        ("nonce-32", {"nonce": "0" * 32}),
        ("nonce-128", {"nonce": "0" * 128}),
        ("milliseconds", {"revokedAt": "2026-05-03T09:30:00.000Z"}),
        ("leap-day", {"revokedAt": "2028-02-29T23:59:59Z"}),
        ("last-instant", {"revokedAt": "9999-12-31T23:59:59.999Z"}),
    ):
        revocation = {**REVOCATION, **change}
        spent = (WALLET.address, revocation["nonce"])
        revokes(f"edge-{name}", "the inner side of an edge", revoked(revocation), spent, "edge")
    for field, code, values in (
        ("nonce", "SCHEMA_NONCE", ["a" * 30, "a" * 33, "a" * 130, "A" * 32, None]),
        ("revokedAt", "SCHEMA_REVOKED_AT",
         ["2026-05-03", "2026-05-03T09:30:00+00:00", "2026-05-03T09:30:00.1Z", "2026-02-29T00:00:00Z", "2026-05-03T24:00:00Z",
          "0000-01-01T00:00:00Z", None]),
    ):  # fmt: skip
        for number, value in enumerate(values):
            document = revoked({**REVOCATION, field: value})
            revokes(f"{field}-{number}", f"{field} is {_shown(value)}", document, code, field)
    for field, code, value in (
        ("walletAddress", "SCHEMA_WALLET_ADDRESS", None),
        ("signature", "SCHEMA_SIGNATURE", base58(b"\xff" * 63)),
        ("envelope", "SCHEMA_ENVELOPE", "offchain-v2"),
    ):
        revokes(f"{field}-form", f"{field} is {_shown(value)}", {**good, field: value}, code, field)
    for name in good:
        revokes(f"missing-{name}", f"no {name}", without(good, name), "SCHEMA_MISSING_KEY")
    for name in REVOCATION:
        revokes(f"missing-{name}", f"no {name}", revoked(without(REVOCATION, name)), "SCHEMA_MISSING_KEY")
    unsigned, nobody = without(good, "signature"), {"walletAddress": "1" * 32}
    inside = text_of(good).replace(b'"nonce"', b'"nonce": "", "nonce"')
    outside = text_of(good).replace(b'"walletAddress"', b'"walletAddress": "", "walletAddress"')
    unsorted = json.dumps(dict(reversed(REVOCATION.items())), separators=(",", ":")).encode()
    for name, comment, document, code, *flags in (
        ("unknown-inside", "a key besides in the revocation", revoked({**REVOCATION, "reason": ""}), "SCHEMA_UNKNOWN_KEY"),
        ("unknown-outside", "a key besides in the transport", {**good, "reason": ""}, "SCHEMA_UNKNOWN_KEY"),
        ("document-array", "the document is an array", [good], "SCHEMA_NOT_AN_OBJECT"),
        ("revocation-null", "the revocation is a null", {**good, "revocation": None}, "SCHEMA_NOT_AN_OBJECT"),
        ("revocation-string", "the revocation is a string", {**good, "revocation": json.dumps(REVOCATION)}, "SCHEMA_NOT_AN_OBJECT"),
        ("duplicate-inside", "a key of the revocation twice", inside, "JSON_DUPLICATE_KEY"),
        ("duplicate-outside", "a key of the transport twice", outside, "JSON_DUPLICATE_KEY"),
        ("bare", "the revocation without transport", REVOCATION, "SCHEMA_MISSING_KEY"),
        ("permit", "a signed permit", signed(), "SCHEMA_MISSING_KEY"),
        ("permit-besides", "a permit besides", {**good, "permit": PERMIT}, "SCHEMA_UNKNOWN_KEY"),
        ("permit-inside", "a signed permit, called a revocation", revoked(PERMIT), "SCHEMA_MISSING_KEY"),
        ("signed-permit", "signed over the permit of this nonce", revoked(signature=signed()["signature"]), "SIGNATURE_INVALID"),
        ("changed-nonce", "nonce was changed after signing", {**good, "revocation": {**REVOCATION, "nonce": "b" * 32}}, "SIGNATURE_INVALID"),
        ("changed-revokedAt", "revokedAt was changed after signing", {**good, "revocation": {**REVOCATION, "revokedAt": ISSUED}}, "SIGNATURE_INVALID"),
        ("raw-as-offchain-v0", "signed raw, said offchain-v0", {**good, "envelope": "offchain-v0"}, "SIGNATURE_INVALID"),
        ("raw-as-offchain-v1", "signed raw, said offchain-v1", {**good, "envelope": "offchain-v1"}, "SIGNATURE_INVALID"),
        ("raw-unsorted", "signed with its keys unsorted", revoked(signature=base58(WALLET.sign(unsorted))), "SIGNATURE_INVALID"),
        ("wallet-other", "another wallet than the one that signed", revoked(walletAddress=OTHER.address), "SIGNATURE_INVALID"),
        ("wallet-small", "for this address a lax verifier takes this signature over anything", revoked(**nobody, signature=base58(pack(IDENTITY) + bytes(32))), "KEY_WALLET_ORDER", "small-order"),
        ("wallet-mixed", "signed for, but not of prime order", revoked(key=Key("wallet", twist=ORDER_8)), "KEY_WALLET_ORDER", "mixed-order"),
        ("wallet-unreduced", "y = p + 2", revoked(walletAddress=base58((P + 2).to_bytes(32, "little"))), "KEY_WALLET_ENCODING"),
        ("order-object-before-missing", "the revocation is no object, and there is no signature", {**unsigned, "revocation": 1}, "SCHEMA_NOT_AN_OBJECT", "order"),
        ("order-outer-missing-before-inner-unknown", "no signature, and an unknown key in the revocation", {**unsigned, "revocation": {**REVOCATION, "a": 1}}, "SCHEMA_MISSING_KEY", "order"),
        ("order-inner-missing-before-outer-unknown", "no nonce, and an unknown key in the transport", {**revoked(without(REVOCATION, "nonce")), "a": 1}, "SCHEMA_MISSING_KEY", "order"),
        ("order-unknown-before-rule", "an unknown key, and no nonce's form", {**revoked({**REVOCATION, "nonce": ""}), "a": 1}, "SCHEMA_UNKNOWN_KEY", "order"),
        ("order-nonce-before-time", "no time, and no nonce's form", revoked({"revokedAt": "", "nonce": ""}), "SCHEMA_NONCE", "order"),
        ("order-time-before-transport", "no time, and no wallet's form", revoked({**REVOCATION, "revokedAt": ""}, walletAddress=""), "SCHEMA_REVOKED_AT", "order"),
        ("order-schema-before-key", "a wallet of small order, and no envelope", {**good, **nobody, "envelope": ""}, "SCHEMA_ENVELOPE", "order"),
        ("order-key-before-signature", "a wallet of small order, which didn't sign", {**good, **nobody}, "KEY_WALLET_ORDER", "order"),
    ):  # fmt: skip
        revokes(name, comment, document, code, *flags)
    another, comment = revoked(walletAddress=OTHER.address), "another's signature in an envelope that isn't allowed"
    refused, only = "SIGNATURE_ENVELOPE_NOT_ALLOWED", ["offchain-v0"]
    revokes("order-envelope-before-signature", comment, another, refused, "order", envelopes=only)
    verifies(file, "as-permit", "a revocation where a permit belongs", good, "SCHEMA_MISSING_KEY")
    verifies(file, "as-permit-inside", "a revocation, called a permit", signed(REVOCATION), "SCHEMA_MISSING_KEY")
    crossed = signed(signature=good["signature"])
    verifies(file, "signed-revocation", "a permit, signed over its revocation", crossed, "SIGNATURE_INVALID")


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for make in (
        make_canonical,
        make_encoding,
        make_schema,
        make_transport,
        make_keys,
        make_ed25519,
        make_envelopes,
        make_time,
        make_revocations,
    ):
        make()
    for file, vectors in FILES.items():
        text = json.dumps({"$schema": "schemas/vectors.json", "vectors": vectors}, indent=1)
        (folder / f"{file}.json").write_text(text + "\n", "ascii")
        print(f"{file}: {len(vectors)}")


if __name__ == "__main__":
    main()
