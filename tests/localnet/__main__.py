"""`python -m tests.localnet SEED`: a chain on a loopback socket, until standard input ends. Prints its URL."""

import asyncio
import random
import sys

from solders.pubkey import Pubkey

from executor.rails.local_chain import LocalChain
from tests.localnet.front import Front


async def main(seed):
    chain = LocalChain(random.Random(seed).randbytes)
    key = Pubkey.from_string

    def control(call):
        name, *arguments = call
        return {"result": commands[name](*arguments)}

    front = Front(chain, control)
    commands = {
        "advance": chain.advance,
        "fault": front.fault,
        "give_lamports": lambda owner, lamports: chain.give_lamports(key(owner), lamports),
        "give_tokens": lambda owner, mint, amount: chain.give_tokens(key(owner), key(mint), amount),
        "height": lambda: chain.block().height,
        "lamports": lambda owner: chain.lamports(key(owner)),
        "logs": chain.logs,
        "make_mint": lambda decimals: str(chain.make_mint(decimals)),
        "token_balance": lambda owner, mint: chain.token_balance(key(owner), key(mint)),
    }
    async with front.serve() as url:
        print(url, flush=True)
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()


asyncio.run(main(int(sys.argv[1])))
