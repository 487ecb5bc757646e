"""Who is believed, and who isn't."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm
from starlette.requests import Request

from executor.service import Settings, tokens
from executor.service.auth import Authentication
from executor.service.files import SecretRefused
from executor.service.problems import Problem
from executor.service.tokens import LEEWAY_S
from tests.executor.service.serving import SECRET, claims, private, settings_in, token
from tests.support import WALLET, key

MINE, YOURS = WALLET.wallet_address, key(2).wallet_address
ED = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_ED = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC_PEM = ED.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
PRIVATE_PEM = ED.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def request(*authorization, query=""):
    headers = [(b"authorization", each.encode("latin-1")) for each in authorization]
    return Request({"type": "http", "headers": headers, "query_string": query.encode()})


def told(authentication, *authorization, query="", stream=False):
    """Return the wallet, or the status of the answer that says no."""
    ask = authentication.stream_caller if stream else authentication.caller
    try:
        return asyncio.run(ask(request(*authorization, query=query))).wallet
    except Problem as problem:
        return problem.status


@pytest.fixture
def believing(tmp_path):
    return Authentication(settings_in(tmp_path))


@pytest.fixture
def believing_ed(tmp_path):
    return Authentication(Settings(jwt_public_key_file=private(tmp_path / "public.pem", PUBLIC_PEM)))


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def by_hand(header, body, secret):
    """Make a token as no library would: whatever the head says, a MAC under `secret`."""
    signed = f"{part(header)}.{part(body)}"
    mac = hmac.digest(secret, signed.encode(), hashlib.sha256) if secret else b""
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def test_a_token_names_its_wallet_and_its_end(believing):
    caller = asyncio.run(believing.caller(request(f"Bearer {token(MINE)}")))
    assert caller.wallet == MINE
    assert caller.expires_at_s == pytest.approx(time.time() + 600, abs=5)
    assert told(believing, f"bearer {token(YOURS, aud=['else', 'holdfire'])}") == YOURS


HOSTILE = {
    "none at all": (),
    "another scheme": (f"Basic {token(MINE)}",),
    "two": (f"Bearer {token(MINE)}", f"Bearer {token(MINE)}"),
    "no token": ("Bearer ",),
    "nonsense": ("Bearer a.b.c",),
    "not ASCII": ("Bearer \xe9\xe9.\xe9.\xe9",),
    "of another secret": (f"Bearer {token(MINE, key=b'x' * 32)}",),
    "over": (f"Bearer {token(MINE, lifetime_s=-LEEWAY_S - 1)}",),
    "not yet": (f"Bearer {token(MINE, nbf=int(time.time()) + 86_400)}",),
    "for somebody else": (f"Bearer {token(MINE, aud='another service')}",),
    "for nobody": (f"Bearer {by_hand({'alg': 'HS256'}, {'wallet': MINE, 'exp': 9e9}, SECRET)}",),
    "without end": (f"Bearer {by_hand({'alg': 'HS256'}, {'wallet': MINE, 'aud': 'holdfire'}, SECRET)}",),
    "of an infinite end": (f"Bearer {by_hand({'alg': 'HS256'}, {**claims(MINE), 'exp': float('inf')}, SECRET)}",),
    "of an end that is no number": (f"Bearer {by_hand({'alg': 'HS256'}, {**claims(MINE), 'exp': [1]}, SECRET)}",),
    "alg none": (f"Bearer {by_hand({'alg': 'none'}, claims(MINE), b'')}",),
    "alg none, signed": (f"Bearer {by_hand({'alg': 'none'}, claims(MINE), SECRET)}",),
    "alg None": (f"Bearer {by_hand({'alg': 'NONE'}, claims(MINE), b'')}",),
    "another algorithm under the secret": (f"Bearer {token(MINE, algorithm='HS512', key=SECRET * 2)}",),
    "a head nested without end": (f"Bearer {base64.urlsafe_b64encode(b'[' * 5_000).decode()}.e30.AA",),
    "longer than any": (f"Bearer {token(MINE, more='x' * 9_000)}",),
    "of no wallet": (f"Bearer {token('somebody')}",),
    "of a wallet that is no text": (f"Bearer {token(5)}",),
}


@pytest.mark.parametrize("authorization", HOSTILE.values(), ids=HOSTILE)
def test_what_is_not_believed_is_401_and_never_falls_back_to_the_address(tmp_path, authorization):
    authentication = Authentication(settings_in(tmp_path, wallet_address_streams=True))
    assert told(authentication, *authorization) == 401
    open_stream = told(authentication, *authorization, query=f"walletAddress={MINE}", stream=True)
    assert open_stream == (401 if authorization else MINE)


def test_the_address_opens_a_stream_only_where_the_operator_lets_it(believing):
    query = f"walletAddress={MINE}"
    assert told(believing, query=query, stream=True) == 401
    assert told(believing, f"Bearer {token(YOURS)}", query=query, stream=True) == YOURS
    letting = Authentication(Settings(wallet_address_streams=True))
    assert told(letting, query=query, stream=True) == MINE
    assert told(letting, query="walletAddress=nobody", stream=True) == 400
    assert told(letting, query=query) == 401, "nothing but the stream"


def test_the_clock_that_ends_a_token_is_an_argument(tmp_path):
    now = [time.time()]
    authentication = Authentication(settings_in(tmp_path), now_s=lambda: now[0])
    mine = f"Bearer {token(MINE)}"
    now[0] += 600 + LEEWAY_S - 2
    assert told(authentication, mine) == MINE
    now[0] += 3
    assert told(authentication, mine) == 401


def test_the_public_key_is_no_secret_to_sign_with(believing_ed):
    assert told(believing_ed, f"Bearer {token(MINE, key=ED, algorithm='EdDSA')}") == MINE
    assert told(believing_ed, f"Bearer {token(MINE, key=OTHER_ED, algorithm='EdDSA')}") == 401
    raw = ED.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    for secret in (PUBLIC_PEM, PUBLIC_PEM.strip(), raw):
        assert told(believing_ed, f"Bearer {by_hand({'alg': 'HS256'}, claims(MINE), secret)}") == 401
        assert told(believing_ed, f"Bearer {by_hand({'alg': 'EdDSA'}, claims(MINE), secret)}") == 401


def test_the_issuer_and_the_claim_are_the_operators(tmp_path):
    authentication = Authentication(settings_in(tmp_path, jwt_issuer="us", jwt_wallet_claim="sub", jwt_audience="it"))
    assert told(authentication, f"Bearer {token(None, sub=MINE, iss='us', aud='it')}") == MINE
    assert told(authentication, f"Bearer {token(None, sub=MINE, iss='them', aud='it')}") == 401
    assert told(authentication, f"Bearer {token(None, sub=MINE, aud='it')}") == 401


def test_a_wallet_that_asks_too_often_waits_and_no_other(tmp_path):
    authentication = Authentication(settings_in(tmp_path, requests_per_minute_per_wallet=3))
    answers = [told(authentication, f"Bearer {token(MINE)}") for _ in range(5)]
    assert answers == [MINE, MINE, MINE, 429, 429]
    assert told(authentication, f"Bearer {token(YOURS)}") == YOURS
    with pytest.raises(Problem) as refused:
        asyncio.run(authentication.caller(request(f"Bearer {token(MINE)}")))
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 20


def test_the_operators_token_is_the_file(believing, believing_ed):
    believing.require_operator(request("Bearer the-operators-token-is-long-enough"))
    for authentication, *told_ in (
        (believing,),
        (believing, "Bearer the-operators-token-is-long-enougH"),
        (believing, f"Bearer {token(MINE)}"),
        (believing, "Bearer \xff"),
        (believing_ed, "Bearer the-operators-token-is-long-enough"),
    ):
        with pytest.raises(Problem) as refused:
            authentication.require_operator(request(*told_))
        assert refused.value.status == 401
    assert told(believing, "Bearer the-operators-token-is-long-enough") == 401, "it is no wallet's"


@pytest.mark.parametrize("name", ["jwt_secret_file", "jwt_private_key_file", "operator_token_file"])
def test_a_secret_that_others_can_read_or_that_is_weak_is_refused(tmp_path, name):
    path = private(tmp_path / "secret", PRIVATE_PEM)
    if name == "jwt_private_key_file":
        Authentication(Settings(**{name: path}))
    path.chmod(0o644)
    with pytest.raises(SecretRefused, match="chmod 600"):
        Authentication(Settings(**{name: path}))
    private(path, b"short")
    with pytest.raises(SecretRefused, match="must hold") as refused:
        Authentication(Settings(**{name: path}))
    assert "short" not in str(refused.value)
    path.unlink()
    with pytest.raises(SecretRefused, match="No such file"):
        Authentication(Settings(**{name: path}))


def test_a_secret_may_come_from_a_function_and_is_held_to_the_same():
    def kept_elsewhere():
        return SECRET + b"\n"

    authentication = Authentication(Settings(jwt_secret_file=kept_elsewhere, operator_token_file=lambda: b"o" * 32))
    assert told(authentication, f"Bearer {token(MINE)}") == MINE
    authentication.require_operator(request(f"Bearer {'o' * 32}"))
    assert "secret of the issuer" not in repr(Settings(jwt_secret_file=kept_elsewhere))

    def too_short():
        return b"short"

    for name in ("jwt_secret_file", "jwt_private_key_file", "operator_token_file"):
        with pytest.raises(SecretRefused, match="what `too_short` returns must hold") as refused:
            Authentication(Settings(**{name: too_short}))
        assert "`short`" not in str(refused.value)

    def unreachable():
        raise ConnectionError("the safe doesn't answer")

    with pytest.raises(ConnectionError):
        Authentication(Settings(jwt_secret_file=unreachable))


# Key sets


def jwk(private_key, kid, **more):
    kind = OKPAlgorithm if isinstance(private_key, Ed25519PrivateKey) else ECAlgorithm
    return {**kind.to_jwk(private_key.public_key(), as_dict=True), "kid": kid, **more}


EC = generate_ec(SECP256R1())
OCT = {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(SECRET).decode()}


def test_a_set_in_a_file_gives_each_key_its_one_algorithm(tmp_path):
    path = tmp_path / "jwks.json"
    keys = [jwk(ED, "ed"), jwk(EC, "ec"), OCT, jwk(OTHER_ED, "enc", use="enc"), {"kid": "odd"}, {"kty": "EC"}]
    path.write_text(json.dumps({"keys": keys}))
    authentication = Authentication(Settings(jwt_jwks_file=path))

    def tell(kid, **how):
        return told(authentication, f"Bearer {token(MINE, headers={'kid': kid}, **how)}")

    assert tell("ed", key=ED, algorithm="EdDSA") == MINE
    assert tell("ec", key=EC, algorithm="ES256") == MINE
    assert tell("ec", key=ED, algorithm="EdDSA") == 401
    assert tell("nobody", key=ED, algorithm="EdDSA") == 401
    assert tell("oct") == 401, "a set that anybody can read holds no secret"
    assert tell("enc", key=OTHER_ED, algorithm="EdDSA") == 401
    assert told(authentication, f"Bearer {token(MINE, key=ED, algorithm='EdDSA')}") == 401, "it must name its key"
    path.write_text("[]")
    with pytest.raises(SecretRefused, match="Key Set"):
        Authentication(Settings(jwt_jwks_file=path))


class Site:
    """A site with a key set, which counts who asks."""

    def __init__(self):
        self.keys, self.status, self.asked = [], 200, 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.asked += 1
                body = json.dumps({"keys": site.keys}).encode()
                self.send_response(site.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks.json"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}).start()


@pytest.fixture
def site():
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


def named(kid, private_key=ED):
    return request(f"Bearer {token(MINE, key=private_key, algorithm='EdDSA', headers={'kid': kid})}")


async def status_of(authentication, asked):
    try:
        return (await authentication.caller(asked)).wallet
    except Problem as problem:
        return problem.status


def test_a_fetched_set_is_asked_for_once_whatever_strangers_name_and_again_for_a_new_key(site, monkeypatch):
    async def story():
        authentication = Authentication(Settings(jwt_jwks_url=site.url))
        monkeypatch.setattr(tokens, "JWKS_PAUSE_S", 1_000)
        site.keys = [jwk(ED, "one")]
        asked = [status_of(authentication, named("one")) for _ in range(20)]
        asked += [status_of(authentication, named(f"made up {number}")) for number in range(50)]
        assert await asyncio.gather(*asked) == [MINE] * 20 + [401] * 50
        assert site.asked == 1
        site.keys = [jwk(OTHER_ED, "two")]
        assert await status_of(authentication, named("two", OTHER_ED)) == 401, "it was fetched a moment ago"
        monkeypatch.setattr(tokens, "JWKS_PAUSE_S", 0)
        assert await status_of(authentication, named("two", OTHER_ED)) == MINE
        assert await status_of(authentication, named("one")) == 401, "it was taken out"

    asyncio.run(story())


def test_while_a_set_can_not_be_fetched_the_last_one_holds_for_a_while_and_then_nobody_is_believed(
    site, monkeypatch, caplog
):
    async def story():
        authentication = Authentication(Settings(jwt_jwks_url=site.url))
        monkeypatch.setattr(tokens, "JWKS_PAUSE_S", 0)
        site.keys, site.status = [jwk(ED, "one")], 500
        assert await status_of(authentication, named("one")) == 503
        site.status = 200
        assert await status_of(authentication, named("one")) == MINE
        site.status = 500
        monkeypatch.setattr(tokens, "JWKS_FRESH_S", 0)
        assert await status_of(authentication, named("one")) == MINE
        monkeypatch.setattr(tokens, "JWKS_STALE_S", 0)
        assert await status_of(authentication, named("one")) == 503
        site.status, site.keys = 200, [{"kid": "x" * tokens.JWKS_BYTES_MAX}]
        assert await status_of(authentication, named("one")) == 503

    with caplog.at_level(logging.ERROR):
        asyncio.run(story())
    assert "can't be fetched" in caplog.text
