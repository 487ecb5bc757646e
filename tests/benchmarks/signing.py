"""The inspection of a swap, against what any signer must do: read the transaction, verify who has signed before."""

from solders.message import to_bytes_versioned
from solders.transaction import VersionedTransaction

from executor.signing import inspect
from tests.benchmarks.ratios import paired, row
from tests.executor.signing.scene import Scene


def inspection(_folder):
    scene = Scene()
    transaction = scene.build(*scene.swap())
    facts, blockhash = scene.facts(transaction), scene.blockhash

    def ours():
        inspect(transaction, scene.authorization, blockhash, scene.cosigners, facts, scene.policy)

    def theirs():
        parsed = VersionedTransaction.from_bytes(transaction)
        message = parsed.message
        parsed.signatures[1].verify(message.account_keys[1], to_bytes_versioned(message))

    return [row("inspect a swap", paired(ours, theirs), "solders: read it, verify the cosigner", 2.5)]


MEASURED = (inspection,)
