"""A client of TradeReady's AgentExchange: its WebSocket, handler by handler.

ws = AgentExchangeWS(api_key="ak_live_...")

@ws.on_ticker("BTCUSDT")
async def handle_btc(data):
    print(data["price"])

await ws.connect()  # or ws.run_forever() in a thread
"""

from executor.agentexchange.client import AgentExchangeWS, ExchangeError
from executor.prices.connection import AuthenticationError

__all__ = ["AgentExchangeWS", "AuthenticationError", "ExchangeError"]
