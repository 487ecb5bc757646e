"""A local chain behind JSON-RPC on a loopback socket, in Solana's wire format, with faults that a test injects.

HTTP is spoken by hand here, so that a test decides about every byte and every connection.
"""

import asyncio
import base64
import json
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from solders.message import MessageV0
from solders.transaction import VersionedTransaction

from executor.errors import ChainError
from executor.rails import Simulation
from executor.solana import TOKEN_2022_PROGRAM, TOKEN_PROGRAM

VERSION = "2.3.13"
RECENT_BLOCKS = 150
"""Without `searchTransactionHistory`, a node looks into these alone."""

PREFLIGHT_FAILED = -32002
UNSUPPORTED_VERSION = -32015
MIN_CONTEXT_SLOT_NOT_REACHED = -32016
INVALID_PARAMS = -32602
NO_SUCH_METHOD = -32601


class Fault(NamedTuple):
    """What happens to the next question of this method ("*": any), instead of an honest answer.

    | kind | value | |
    |---|---|---|
    | drop-request | | the connection breaks before the chain sees it |
    | drop-answer | | the connection breaks after it |
    | hold-request, hold-answer | | it waits for `Front.release`, before or after |
    | twice | | the chain sees it twice, as from a proxy that tries again |
    | repeat | | the answer is written twice |
    | swap | | the answers to two questions change places; give it twice |
    | drip | | the answer comes byte by byte, and never ends |
    | status | HTTP status | with no JSON |
    | body | text | instead of the JSON |
    | header | text | one line more in the head |
    | flood | bytes | a body as long as that |
    | id | any | as the answer's id |
    | error | object | an error of JSON-RPC, though the chain has done what was asked |
    | refuse | object | an error of JSON-RPC, before the chain sees it |
    | result | any | as the result |
    | lag | slots | by a node so far behind, which knows no newer blockhash or slot, but of accounts the newest |
    | change | function | what it makes of the true result; not from another process |
    """

    method: str
    kind: str
    value: Any = None


class Declined(Exception):
    def __init__(self, code, message, data=None):
        super().__init__(message)
        self.error = {"code": code, "message": message, **({} if data is None else {"data": data})}


class Front:
    """Serves one chain. `asked` lists the methods that the chain saw; `faults` are used up from the first one on."""

    def __init__(self, chain, control=None):
        self.chain = chain
        self.faults = []
        self.asked = []
        self._control = control
        self._swapped = None
        self._connections = {}

    @asynccontextmanager
    async def serve(self, path="/"):
        """Serve while the block runs; yields the URL."""
        self.release = asyncio.Event()  # of this loop
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{path}"
        finally:
            server.close()
            self.release.set()
            for writer in self._connections.values():
                writer.transport.abort()
            await asyncio.gather(*self._connections)

    def fault(self, method, kind, value=None, times=1):
        """Let it happen to the next `times` questions of `method`."""
        self.faults.extend([Fault(method, kind, value)] * times)

    async def _serve(self, reader, writer):
        self._connections[asyncio.current_task()] = writer
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = int(head.partition("content-length:")[2].partition("\r\n")[0])
                body = await reader.readexactly(length)
                if head.startswith("post /control"):
                    writer.write(_response(json.dumps(self._control(json.loads(body)))))
                elif not await self._respond(json.loads(body), writer):
                    break
                await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        del self._connections[asyncio.current_task()]

    async def _respond(self, question, writer):
        """Answer, and tell whether the connection lives on."""
        fault = self._take(question["method"])
        if fault.kind == "drop-request":
            return False
        if fault.kind == "hold-request":
            await self.release.wait()
        answer = await self._answer(question, fault)
        if fault.kind == "twice":
            answer = await self._answer(question, fault)
        if fault.kind == "hold-answer":
            await self.release.wait()
        if fault.kind == "swap":
            answer = await self._swap(answer)
        return await self._write(answer, fault, writer)

    async def _write(self, answer, fault, writer):
        match fault.kind:
            case "drop-answer":
                return False
            case "drip":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not self.release.is_set():
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.01)
                return False
            case "flood":
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {fault.value}\r\n\r\n".encode())
                for _ in range(fault.value // 2**16):
                    writer.write(b" " * 2**16)
                    await writer.drain()
                return False
            case "status":
                response = _response("", fault.value)
            case "body":
                response = _response(fault.value)
            case "header":
                response = _response(json.dumps(answer), header=fault.value)
            case _:
                response = _response(json.dumps(answer))
        writer.write(response * (2 if fault.kind == "repeat" else 1))
        return True

    def _take(self, method):
        for index, fault in enumerate(self.faults):
            if fault.method in ("*", method):
                return self.faults.pop(index)
        return Fault(method, "honest")

    async def _swap(self, answer):
        if self._swapped is None:
            self._swapped = asyncio.get_running_loop().create_future(), answer
            return await self._swapped[0]
        (waiting, other), self._swapped = self._swapped, None
        waiting.set_result(answer)
        return other

    async def _answer(self, question, fault):
        answer = {"jsonrpc": "2.0", "id": fault.value if fault.kind == "id" else question["id"]}
        if fault.kind == "refuse":
            return {**answer, "error": fault.value}
        self.asked.append(question["method"])
        try:
            lag = fault.value if fault.kind == "lag" else 0
            result = await _call(self.chain, question["method"], question["params"], lag)
        except Declined as error:
            return {**answer, "error": error.error}
        if fault.kind == "error":
            return {**answer, "error": fault.value}
        if fault.kind == "result":
            result = fault.value
        if fault.kind == "change":
            result = fault.value(result)
        return {**answer, "result": result}


def _response(body, status=200, header=None):
    content = body.encode()
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(content)}"]
    lines += ["Location: /elsewhere"] if status // 100 == 3 else []
    lines += [header] if header else []
    return "\r\n".join([*lines, "", ""]).encode() + content


async def _call(chain, method, params, lag):
    procedure = METHODS.get(method)
    if procedure is None:
        raise Declined(NO_SUCH_METHOD, "Method not found")
    slot = chain.block().slot - lag
    for each in params:
        if isinstance(each, dict) and each.get("minContextSlot", 0) > slot:
            data = {"contextSlot": slot}
            raise Declined(MIN_CONTEXT_SLOT_NOT_REACHED, "Minimum context slot has not been reached", data)
    if lag and method in ("sendTransaction", "simulateTransaction"):
        chain = _Lagging(chain, lag)
    result = await procedure(chain, *params)
    if lag and isinstance(result, dict) and "context" in result:
        result["context"]["slot"] = slot
    return result


class _Lagging:
    """The chain as a node tries transactions on it that hasn't seen the newest `lag` blocks."""

    def __init__(self, chain, lag):
        self._chain = chain
        self._lag = lag

    def __getattr__(self, name):
        return getattr(self._chain, name)

    async def simulate(self, transaction):
        height = self._chain.block().height
        unseen = [self._chain._blockhash(each) for each in range(height - self._lag + 1, height + 1)]
        if VersionedTransaction.from_bytes(transaction).message.recent_blockhash in unseen:
            return Simulation("BlockhashNotFound", ())
        return await self._chain.simulate(transaction)


def _with_context(chain, value):
    return {"context": {"apiVersion": VERSION, "slot": chain.block().slot}, "value": value}


async def _latest_blockhash(chain, _config=None):
    blockhash = await chain.latest_blockhash()
    value = {"blockhash": blockhash.hash, "lastValidBlockHeight": blockhash.last_valid_block_height}
    return _with_context(chain, value)


async def _epoch_info(chain, _config=None):
    block = chain.block()
    return {
        "absoluteSlot": block.slot,
        "blockHeight": block.height,
        "epoch": block.epoch,
        "slotIndex": block.slot,
        "slotsInEpoch": 432_000,
        "transactionCount": None,
    }


async def _block_height(chain, _config=None):
    return chain.block().height


async def _slot(chain, _config=None):
    return chain.block().slot


async def _first_available_block(_chain):
    return 0


def _info(account):
    return account and {
        "data": [base64.b64encode(account.data).decode(), "base64"],
        "executable": False,
        "lamports": account.lamports,
        "owner": account.owner,
        "rentEpoch": 2**64 - 1,
        "space": len(account.data),
    }


async def _multiple_accounts(chain, addresses, config):
    assert config["encoding"] == "base64"
    return _with_context(chain, [_info(account) for account in await chain.accounts(addresses)])


async def _token_accounts_by_owner(chain, owner, which, config):
    assert config["encoding"] == "base64"
    assert which["programId"] in (str(TOKEN_PROGRAM), str(TOKEN_2022_PROGRAM))
    held = [each.address for each in await chain.holdings(owner) if each.token_program == which["programId"]]
    accounts = [(await chain.accounts([address]))[0] for address in held]  # however many: no limit is documented
    pairs = zip(held, accounts, strict=True)
    return _with_context(chain, [{"account": _info(account), "pubkey": address} for address, account in pairs])


async def _rent(chain, data_bytes, _config=None):
    return await chain.rent(data_bytes)


def _content(text, config):
    if config.get("encoding") != "base64":
        raise Declined(INVALID_PARAMS, "encoded solana transaction is not base58")
    return base64.b64decode(text)


def _err(text):
    return json.loads(text) if text is not None and text.startswith("{") else text


async def _simulate(chain, text, config):
    simulation = await chain.simulate(_content(text, config))
    value = {"accounts": None, "err": _err(simulation.error), "logs": list(simulation.logs), "unitsConsumed": 0}
    return _with_context(chain, value)


async def _send(chain, text, config):
    content = _content(text, config)
    tx_signature = str(VersionedTransaction.from_bytes(content).signatures[0])
    if not config.get("skipPreflight"):
        await _preflight(chain, content, tx_signature)
    try:
        chain.execute(content)
    except ChainError as error:
        raise Declined(PREFLIGHT_FAILED, str(error), {"err": "SignatureFailure", "logs": []}) from None
    return tx_signature


async def _preflight(chain, content, tx_signature):
    simulation = await chain.simulate(content)
    error = "AlreadyProcessed" if chain.transaction(tx_signature) else simulation.error
    if error is not None:
        data = {"accounts": None, "err": _err(error), "logs": list(simulation.logs), "unitsConsumed": 0}
        raise Declined(PREFLIGHT_FAILED, f"Transaction simulation failed: {error}", data)


async def _signature_statuses(chain, tx_signatures, config=None):
    found = [await chain.record(each, 0) for each in tx_signatures]
    oldest = 0 if (config or {}).get("searchTransactionHistory") else chain.block().slot - RECENT_BLOCKS
    statuses = [
        {
            "confirmationStatus": "finalized",
            "confirmations": None,
            "err": _err(record.error),
            "slot": record.slot,
            "status": {"Ok": None} if record.error is None else {"Err": _err(record.error)},
        }
        if record is not None and record.slot >= oldest
        else None
        for record in found
    ]
    return _with_context(chain, statuses)


async def _transaction(chain, tx_signature, config):
    record, content = await chain.record(tx_signature, 0), chain.transaction(tx_signature)
    if record is None:
        return None
    message = VersionedTransaction.from_bytes(content).message
    version = 0 if isinstance(message, MessageV0) else "legacy"
    if version == 0 and config.get("maxSupportedTransactionVersion") is None:
        text = "Transaction version (0) is not supported by the requesting client."
        raise Declined(UNSUPPORTED_VERSION, text)
    assert config["encoding"] == "base64"
    addresses = list(record.before.lamports)
    lookups = message.address_table_lookups if version == 0 else []
    writable = sum(len(each.writable_indexes) for each in lookups)
    loaded = addresses[len(message.account_keys) :]
    meta = {
        "computeUnitsConsumed": 0,
        "err": _err(record.error),
        "fee": record.fee_lamports,
        "innerInstructions": [],
        "loadedAddresses": {"readonly": loaded[writable:], "writable": loaded[:writable]},
        "logMessages": chain.logs(tx_signature),
        "postBalances": list(record.after.lamports.values()),
        "postTokenBalances": _token_balances(addresses, record.after.tokens),
        "preBalances": list(record.before.lamports.values()),
        "preTokenBalances": _token_balances(addresses, record.before.tokens),
        "rewards": [],
    }
    transaction = [base64.b64encode(content).decode(), "base64"]
    return {"blockTime": None, "meta": meta, "slot": record.slot, "transaction": transaction, "version": version}


def _token_balances(addresses, tokens):
    return [
        {
            "accountIndex": addresses.index(address),
            "mint": balance.mint,
            "owner": balance.owner,
            "programId": str(TOKEN_PROGRAM),
            "uiTokenAmount": {
                "amount": str(balance.amount),
                "decimals": 6,
                "uiAmount": balance.amount / 10**6,
                "uiAmountString": str(balance.amount / 10**6),
            },
        }
        for address, balance in tokens.items()
    ]


METHODS = {
    "getBlockHeight": _block_height,
    "getEpochInfo": _epoch_info,
    "getFirstAvailableBlock": _first_available_block,
    "getLatestBlockhash": _latest_blockhash,
    "getMinimumBalanceForRentExemption": _rent,
    "getMultipleAccounts": _multiple_accounts,
    "getSignatureStatuses": _signature_statuses,
    "getSlot": _slot,
    "getTokenAccountsByOwner": _token_accounts_by_owner,
    "getTransaction": _transaction,
    "sendTransaction": _send,
    "simulateTransaction": _simulate,
}
