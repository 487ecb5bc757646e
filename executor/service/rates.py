"""How often somebody may ask: a rate, with a minute's worth at once, in one number for each who asks (GCRA).

>>> rates = Rates(60)
>>> sum(rates.wait_s("somebody", now_s=100.0) == 0 for _ in range(70))
60
>>> rates.wait_s("somebody", now_s=100.0), rates.wait_s("somebody else", now_s=100.0)
(1.0, 0.0)
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

__all__ = ["Rates", "client_of", "payer_of"]

PERIOD_S: Final = 60.0
KNOWN_MAX: Final = 65_536
"""Some 10 MB. Whoever has more addresses than that pushes out those who asked longest ago, and begins anew."""
IPV6_PREFIX: Final = 64
"""What one customer is given; a host chooses addresses in it at will."""


class Rates:
    """Counts requests by a key."""

    def __init__(self, per_minute: int) -> None:
        self._interval_s = PERIOD_S / per_minute
        self._paid_until_s: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, key: str, now_s: float) -> float:
        """Count a request and return 0; or, if it is one too many, return in how many seconds it wouldn't be."""
        paid_until_s = max(self._paid_until_s.get(key, now_s), now_s)
        wait_s = max(0.0, paid_until_s + self._interval_s - now_s - PERIOD_S)
        if wait_s < 1e-6:  # noqa: PLR2004 - what adding fractions of a second leaves
            wait_s = 0.0
            self._paid_until_s[key] = paid_until_s + self._interval_s
        self._paid_until_s.move_to_end(key)
        if len(self._paid_until_s) > KNOWN_MAX:
            self._paid_until_s.popitem(last=False)
        return wait_s


def client_of(peer: str, forwarded_for: Sequence[str], trusted: Sequence[IPv4Network | IPv6Network]) -> str:
    """Return the address that asks: the peer, or, for a trusted proxy, the last in `X-Forwarded-For` that isn't one.

    What stands before that somebody else may have made up.
    """
    hops = [hop.strip() for line in forwarded_for for hop in line.split(",")]
    client = peer
    while _is_in(client, trusted) and hops:
        hop = hops.pop()
        if _address(hop) is None:
            break
        client = hop
    return client


def payer_of(client: str) -> str:
    """Return what is counted for the address: itself, or its /64."""
    address = _address(client)
    if address is None:
        return client
    return str(address if address.version == 4 else ip_network((int(address), IPV6_PREFIX), strict=False))  # noqa: PLR2004


def _is_in(client: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    address = _address(client)
    return address is not None and any(address in network for network in networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
