"""The session vault: keys under a master key that may be exchanged, and the end of a key."""

import pickle
import traceback

import pytest

from executor.audit import check_ledger
from executor.decide import Refused
from executor.errors import IllegalTransition, VaultError
from executor.halts import EVERYTHING, Halter
from executor.lifecycle import AgentState
from executor.reasons import Reason
from executor.signing import SessionVault
from executor.signing.vault import read_master_key
from permits import draft, issue
from tests.support import uuid

OLD, NEW = b"o" * 32, b"n" * 32


def sign(setup, vault, session_pubkey, agent=1):
    with setup.guard.ledger.view(setup.wallet) as view:
        return vault.sign(view, uuid(agent), session_pubkey, b"message")


@pytest.fixture
def vault(setup):
    return SessionVault(setup.guard, OLD, random_bytes=setup.random.randbytes)


def activate(setup, vault, agent=1):
    """Have the vault make the agent's key, and activate a permit for it."""
    permit = draft(
        agent_id=uuid(agent),
        session_pubkey=vault.make_session_key(setup.wallet, uuid(agent)),
        asset_whitelist=["USDC", "JTO"],
        max_amount_usd=250,
        issued_at_ms=setup.now_ms,
        lifetime_s=3600,
        nonce=setup.random.randbytes(16).hex(),
    )
    return setup.guard.activate(issue(permit, setup.signer))


def test_a_key_and_its_reservation_come_together_or_not_at_all(setup, vault):
    setup.guard.halt(EVERYTHING, Halter.OPERATOR, "a drill")
    session_pubkey = vault.make_session_key(setup.wallet, uuid(1))
    assert setup.guard.agent(setup.wallet, uuid(1)).session_pubkey == session_pubkey
    for wallet, agent_id in ((setup.wallet, "1"), ("nobody", uuid(2))):
        with pytest.raises(ValueError, match="is not"):
            vault.make_session_key(wallet, agent_id)
    assert len(setup.guard.entries(setup.wallet)) == 1


def test_an_agent_whose_key_is_somewhere_else_gets_no_second_one(setup, vault):
    setup.activate(1)
    with pytest.raises(VaultError, match="never in this vault"):
        vault.make_session_key(setup.wallet, uuid(1))


def test_a_new_master_key_takes_over(setup, vault):
    session_pubkeys = {agent: vault.make_session_key(setup.wallet, uuid(agent)) for agent in (1, 2, 3)}
    both = SessionVault(setup.guard, NEW, older=[OLD])
    assert both.rotate() == 3
    assert both.rotate() == 0
    later = SessionVault(setup.guard, NEW)
    for agent, session_pubkey in session_pubkeys.items():
        assert later.make_session_key(setup.wallet, uuid(agent)) == session_pubkey
        assert len(sign(setup, later, session_pubkey, agent)) == 64
        with pytest.raises(VaultError, match="doesn't open"):
            sign(setup, vault, session_pubkey, agent)


def test_a_rotation_that_can_not_open_a_key_leaves_it_as_it_was(setup, vault):
    session_pubkey = vault.make_session_key(setup.wallet, uuid(1))
    with pytest.raises(VaultError, match="doesn't open"):
        SessionVault(setup.guard, NEW).rotate()
    assert len(sign(setup, vault, session_pubkey, 1)) == 64


def test_a_key_is_destroyed_only_when_its_agent_is_over_and_nothing_is_open(setup, vault):
    bounds = activate(setup, vault)
    decision = setup.guard.authorize(setup.request(1))
    with pytest.raises(IllegalTransition, match="only what was stopped or completed"):
        setup.guard.destroy_session_key(setup.wallet, uuid(1))
    setup.guard.stop(setup.wallet, uuid(1))
    with pytest.raises(IllegalTransition, match="have not ended"):
        setup.guard.destroy_session_key(setup.wallet, uuid(1))
    setup.guard.void(setup.wallet, decision.authorization.execution_id, Reason.RAIL_UNAVAILABLE, "stopped")
    for _ in range(2):
        setup.guard.destroy_session_key(setup.wallet, uuid(1))
    assert setup.guard.agent(setup.wallet, uuid(1)).state is AgentState.COMPLETED
    with pytest.raises(VaultError, match="no session key"):
        sign(setup, vault, bounds.terms.session_pubkey, 1)
    with pytest.raises(VaultError, match="destroyed"):
        vault.make_session_key(setup.wallet, uuid(1))
    assert check_ledger(setup.guard.ledger).findings == ()


def test_an_agent_without_its_key_never_starts_again(setup, vault):
    activate(setup, vault)
    session_pubkey = setup.guard.agent(setup.wallet, uuid(1)).session_pubkey
    setup.guard.stop(setup.wallet, uuid(1))
    setup.guard.destroy_session_key(setup.wallet, uuid(1))
    setup.now_ms += 1_000
    permit = draft(
        agent_id=uuid(1),
        session_pubkey=session_pubkey,
        asset_whitelist=["USDC"],
        max_amount_usd=1,
        issued_at_ms=setup.now_ms,
        lifetime_s=3600,
    )
    refused = setup.guard.activate(issue(permit, setup.signer))
    assert isinstance(refused, Refused)
    assert Reason.AGENT_COMPLETED in [check.reason for check in refused.checks]


def test_a_sweep_is_recorded_once_and_only_of_an_agent_that_is_over(setup, vault):
    activate(setup, vault)
    with pytest.raises(IllegalTransition):
        setup.guard.record_sweep(setup.wallet, uuid(1), lambda _: ("sweep", b"bytes"), last_valid_block_height=7)
    setup.guard.stop(setup.wallet, uuid(1))
    setup.guard.halt(EVERYTHING, Halter.OPERATOR, "a drill")
    for _ in range(2):
        setup.guard.record_sweep(setup.wallet, uuid(1), lambda _: ("sweep", b"bytes"), last_valid_block_height=7)
    kinds = [each.entry.kind for each in setup.guard.entries(setup.wallet)]
    assert kinds.count("sweep-signed") == 1
    assert [event.name for _, event in setup.guard.events(setup.wallet)] == ["completed"]
    assert check_ledger(setup.guard.ledger).findings == ()


def test_a_vault_shows_no_key_and_stays_where_it_is(setup, vault):
    vault.make_session_key(setup.wallet, uuid(1))
    assert OLD.hex() not in repr(vault)
    assert repr(OLD) not in repr(vault)
    with pytest.raises(TypeError, match="doesn't leave"):
        pickle.dumps(vault)
    with pytest.raises(VaultError) as error:
        SessionVault(setup.guard, NEW).make_session_key(setup.wallet, uuid(1))
    told = "".join(traceback.format_exception(error.value))
    assert all(secret not in told for secret in (OLD.hex(), NEW.hex(), repr(OLD), repr(NEW)))


def test_a_master_key_lies_in_a_file_for_its_owner_alone(tmp_path):
    path = tmp_path / "master.key"
    path.write_text(OLD.hex() + "\n")
    path.chmod(0o600)
    assert read_master_key(path) == OLD
    for mode in (0o644, 0o604, 0o620, 0o660):
        path.chmod(mode)
        with pytest.raises(VaultError, match="chmod 600"):
            read_master_key(path)
    path.chmod(0o600)
    for content in (OLD.hex()[:-1], OLD.hex() + "00", "g" * 64, ""):
        path.write_text(content)
        with pytest.raises(VaultError, match="must hold") as error:
            read_master_key(path)
        assert not content or content not in str(error.value)
    with pytest.raises(OSError, match="No such file"):
        read_master_key(tmp_path / "none")
