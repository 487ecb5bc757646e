"""Verification: from transport JSON to a verified permit."""

import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from random import Random

import biscuit_auth
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.bindings import crypto_sign_open

from permits import Permit, PermitError, VerifiedPermit, keys, timestamp, utc_ms, verify, verify_many
from tests.benchmarks.ratios import each_in_turn, paired, row
from tests.support import PERMIT, WALLET, as_json


def distinct_permits(count):
    """Return transport JSON and signed message of `count` permits of one wallet, three assets each, no two alike."""
    random = Random(1)
    documents, messages = [], []
    for number in range(count):
        permit = Permit.from_json_object(
            {
                **PERMIT,
                "sessionPubkey": keys.encode(random.randbytes(31) + b"\1"),
                "issuedAt": timestamp(utc_ms(PERMIT["issuedAt"]) + number * 1000),
                "nonce": random.randbytes(16).hex(),
            }
        )
        message = permit.canonical_bytes()
        signature = WALLET.sign(message)
        signed = {"walletAddress": WALLET.wallet_address, "signature": keys.encode(signature)}
        documents.append(as_json({"permit": permit.to_json_object(), **signed}))
        messages.append(signature + message)
    return documents, messages


def as_biscuit(permit, private_key):
    """Return a biscuit that says what `permit` says: the peers' tokens carry the same bounds."""
    assets = "".join(f'asset("{asset}");' for asset in permit["assetWhitelist"])
    source = f"""
        agent({{agentId}}); session_key({{sessionPubkey}}); nonce({{nonce}}); issued({{issuedAt}}); {assets}
        max_cents({permit["maxAmountPerExecutionUsd"] * 100}); check if time($time), $time < {{expiresAt}}"""
    values = {name: permit[name] for name in ("agentId", "sessionPubkey", "nonce")}
    times = {name: datetime.fromisoformat(permit[name]) for name in ("issuedAt", "expiresAt")}
    return biscuit_auth.BiscuitBuilder(source, values | times).build(private_key).to_bytes()


def verification(_folder):
    """From transport JSON to VerifiedPermit, a wallet seen before: against the signature alone, and against peers."""
    documents, messages = distinct_permits(20_000)
    wallet = keys.decode_key(WALLET.wallet_address)
    now_ms = utc_ms(PERMIT["issuedAt"]) + len(documents) * 1000
    ours = each_in_turn(lambda document: verify(document, now_ms=now_ms), documents)
    floor = each_in_turn(lambda message: crypto_sign_open(message, wallet), messages)

    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = private.public_key()
    tokens = [jwt.encode(json.loads(each)["permit"], private, algorithm="EdDSA") for each in documents]
    decode_jwt = each_in_turn(lambda token: jwt.decode(token, public, ["EdDSA"]), tokens)

    pair = biscuit_auth.KeyPair()
    biscuits = [as_biscuit(json.loads(each)["permit"], pair.private_key) for each in documents]
    policy = biscuit_auth.AuthorizerBuilder('allow if asset("SOL"), max_cents($max), $max >= 10000')
    now = datetime.fromtimestamp(now_ms / 1000, UTC)

    def authorize_biscuit(biscuit):
        request = biscuit_auth.AuthorizerBuilder()
        request.merge(policy)
        request.add_fact(biscuit_auth.Fact("time({now})", {"now": now}))
        request.build(biscuit_auth.Biscuit.from_bytes(biscuit, pair.public_key)).authorize()

    authorize = each_in_turn(authorize_biscuit, biscuits)

    return [
        row("verify", paired(ours, floor), "libsodium alone", 1.5),
        row("verify", paired(ours, decode_jwt), "PyJWT, EdDSA", 1.0),
        row("verify", paired(ours, authorize), "biscuit, verify and authorize", 1.0),
    ]


def verification_of_many(_folder):
    """Two processes against one, and the memory for a million permits against that for ten thousand."""
    count = 60_000
    documents, _ = distinct_permits(5_000)

    def seconds(processes):
        start = time.perf_counter()
        results = verify_many(take(documents, count), processes=processes)
        assert sum(isinstance(each, VerifiedPermit) for each in results) == count
        return (time.perf_counter() - start) * 1e6 / count

    pairs = [(seconds(2), seconds(1)) for _ in range(3)]
    ratio = statistics.median(two / one for two, one in pairs)
    medians = (statistics.median(side) for side in zip(*pairs, strict=True))
    speed = row("verify_many, 2 processes", (*medians, ratio), "1 process", 1 / 1.6)
    small, large = (peak_memory_kb(number) for number in (10_000, 1_000_000))
    memory = row("verify_many, 1,000,000 permits", (large, small, large / small), "10,000 permits", 1.1)
    return [speed, {**memory, "unit": "KB", "floor or peer": f"10,000 permits: {small} KB"}]


def take(documents, count):
    return itertools.islice(itertools.cycle(documents), count)


def peak_memory_kb(count):
    """Return the most memory that a fresh process took to have `count` permits verified (ru_maxrss is inherited)."""
    script = f"""
import re
from pathlib import Path
from tests.benchmarks.verification import distinct_permits, take, verify_many
if __name__ == "__main__":
    documents, _ = distinct_permits(500)
    assert sum(1 for _ in verify_many(take(documents, {count}))) == {count}
    print(re.search("VmHWM:\\s*([0-9]+) kB", Path("/proc/self/status").read_text())[1])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(done.stdout)


def parsing(_folder):
    """Time for a byte at the size limit against time for a byte at an eighth of it, for the worst of many shapes."""
    shapes = {
        "white space": lambda size: b" " * (size - 2) + b"{}",
        "one string": lambda size: b'"' + b"a" * (size - 2) + b'"',
        "escapes": lambda size: b'"' + b"\\u0061" * ((size - 2) // 6) + b'"',
        "surrogate pairs": lambda size: b'"' + b"\\ud83d\\ude00" * ((size - 2) // 12) + b'"',
        "digits": lambda size: b"1" * size,
        "digits after a point": lambda size: b"0." + b"1" * (size - 2),
        "brackets": lambda size: b"[" * size,
        "keys": lambda size: b"{" + b",".join(b'"%d":1' % number for number in range(size // 10)) + b"}",
        "one key again and again": lambda size: b"{" + b",".join([b'"a":1'] * (size // 6)) + b"}",
        "numbers": lambda size: b"[" + b",".join([b"1.5"] * (size // 4)) + b"]",
        "strings": lambda size: b"[" + b",".join([b'"a"'] * (size // 4)) + b"]",
        "quotes": lambda size: b'"[[[[[[[[[' * (size // 10),
        "no UTF-8": lambda size: b"a" * (size - 1) + b"\xff",
        "an asset list": lambda size: as_json({**PERMIT, "assetWhitelist": ["z" * 44] * (size // 48)}),
        "a long key": lambda size: as_json({**PERMIT, "sessionPubkey": "z" * (size - 400)}),
    }

    def attempt(data):
        with contextlib.suppress(PermitError):
            Permit.from_json(data)

    ratios = {}
    for name, shape in shapes.items():
        small, large = shape(2_048), shape(16_384)
        pair = paired(lambda large=large: attempt(large), lambda small=small: attempt(small), seconds=0.01)
        ratios[name] = (pair[0] / len(large), pair[1] / len(small), pair[2] * len(small) / len(large))
    worst = max(ratios, key=lambda name: ratios[name][2])
    return [{**row(f"read a byte of 16 KiB ({worst})", ratios[worst], "a byte of 2 KiB", 1.25)}]


MEASURED = (verification, verification_of_many, parsing)
