"""One replica of the service over the PostgreSQL database named first, on the port named second, until killed."""

import sys

from executor.assets import KnownAssets
from executor.guard import AsyncGuard, Guard
from executor.prices.quote import FixedPrices
from executor.seal import SealKeys
from executor.service import Settings, bind, create_app, serve
from tests.support import T0

guard = Guard.open(
    sys.argv[1],
    seal_keys=SealKeys.single(b"s" * 32),
    prices=FixedPrices(),
    assets=KnownAssets([]),
    clock=lambda: T0,
)
bound = bind("127.0.0.1", int(sys.argv[2]))
print("ready", flush=True)
serve(create_app(AsyncGuard(guard), Settings(wallet_address_streams=True)), bound)
