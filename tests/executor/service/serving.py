"""A service on a real socket, and the files that its settings name."""

import contextlib
import time

import httpx
import jwt

from executor.guard import AsyncGuard
from executor.service import Settings, create_app
from tests.executor.service.served import served

SECRET = b"the secret of the issuer of tokens, long enough"


@contextlib.contextmanager
def serving(guard, settings):
    """Serve `guard` in a thread; hand over a client of it."""
    app = create_app(AsyncGuard(guard), settings)
    with served(app) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield client


def private(path, data):
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def settings_in(folder, **more):
    """Return settings of a service that signs in and believes tokens under SECRET."""
    return Settings(
        **{
            "jwt_secret_file": private(folder / "jwt.secret", SECRET),
            "secret_file": private(folder / "service.secret", b"the service's own secret, long enough too"),
            "operator_token_file": private(folder / "operator.token", b"the-operators-token-is-long-enough\n"),
            "sign_in_domain": "app.example.org",
            **more,
        }
    )


def claims(wallet, *, lifetime_s=600, **more):
    return {"wallet": wallet, "aud": "holdfire", "exp": int(time.time()) + lifetime_s, **more}


def token(wallet, *, key=SECRET, algorithm="HS256", headers=None, **more):
    return jwt.encode(claims(wallet, **more), key, algorithm, headers)


def bearer(text):
    return {"Authorization": f"Bearer {text}"}
