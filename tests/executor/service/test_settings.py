"""One file of settings: what is wrong with it is said line by line, and the page shows what there is."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest

from executor.cli import main
from executor.service import Settings
from executor.service.fire_socket import LINUX_ONLY
from executor.service.settings import AUTOFUND_VARIABLE, SettingsRefused
from tests.executor.service.serving import private

DOCS = Path(__file__).parents[3] / "docs"
GENERATOR = runpy.run_path(str(DOCS / "settings.py"))
SEAL_KEY = (b"s" * 32).hex().encode()


@pytest.fixture
def config(tmp_path):
    """Return a file of settings that can be served, which `write` adds to."""
    private(tmp_path / "seal.key", SEAL_KEY)
    path = tmp_path / "holdfire.toml"

    def write(more="", seal_key="seal.key"):
        path.write_text(f"ledger = '{tmp_path}/ledger.db'\nport = 0\nseal_key_file = '{tmp_path / seal_key}'\n{more}\n")
        return path

    write()
    return write


def check(path, capsys):
    status = main(["config", "check", str(path)])
    return status, capsys.readouterr().out.splitlines()


def test_what_will_hold_is_said_in_lines(config, capsys):
    status, lines = check(config("hosts = ['api.example.org']"), capsys)
    assert status == 0
    assert "port = 0" in lines
    assert "hosts = api.example.org" in lines
    assert "origins = none" in lines
    assert len(lines) == len(Settings.model_fields)


WRONG = {
    "prot = 1": "`prot`: there is no such setting",
    "port = 65536": "`port`: Input should be less than or equal to 65535",
    "port = '": "holdfire.toml`: ",
    "hosts = ['a:80']": "`hosts.0`: must be a name or an address",
    "origins = ['https://a/']": "`origins.0`: must be like",
    "origins = ['*']": "`origins.0`: must be like",
    "trusted_proxies = ['10.0.0.1/8']": "`trusted_proxies.0",
    "jwt_jwks_url = 'http://keys.example.org'": "`jwt_jwks_url`: must begin with `https://`",
    "operator_token_file = '/nowhere/token'": "`/nowhere/token`: No such file or directory",
    "sign_in_domain = 'a.example'": "sign-in needs `jwt_private_key_file` or `jwt_secret_file`",
    "assets_file = '/nowhere/assets.json'": "`/nowhere/assets.json`: No such file",
    "vault_key_file = '/nowhere/key'": "`/nowhere/key`: No such file",
    "quotes_file = '/nowhere/quotes'": "`/nowhere/quotes`: No such file",
    f"{AUTOFUND_VARIABLE} = 5": "only the environment sets this limit",
    f"{AUTOFUND_VARIABLE.lower()} = 5": "only the environment sets this limit",
}


@pytest.mark.parametrize(("line", "told"), WRONG.items(), ids=WRONG)
def test_what_is_wrong_is_said_in_a_line(config, capsys, line, told):
    text = config(line).read_text().replace("port = 0\n", "" if line.startswith("port") else "port = 0\n")
    path = config()
    path.write_text(text)
    status, lines = check(path, capsys)
    assert status == 1
    assert len(lines) == 1
    assert told in lines[0]
    assert main(["serve", "--config", str(path)]) in {1, 2}
    assert capsys.readouterr().err.count("\n") == 1


def test_each_of_many_wrongs_has_its_line(config, capsys):
    status, lines = check(config("prot = 1\nhost = 5\nbody_bytes_max = 1"), capsys)
    assert (status, len(lines)) == (1, 3)


def test_a_secret_that_others_can_read_is_named_and_not_shown(config, capsys, tmp_path):
    (tmp_path / "seal.key").chmod(0o644)
    status, lines = check(config(), capsys)
    assert (status, len(lines)) == (1, 1)
    assert "is open to others" in lines[0]
    private(tmp_path / "seal.key", b"not a key")
    status, lines = check(config(), capsys)
    assert status == 1
    assert "not a key" not in lines[0]


@pytest.mark.parametrize("assets", ["{}", "[5]", '[{"symbol": "SOL"}]', "[", '[{"a": 1, "a": 2}]'])
def test_assets_that_are_none_are_told(config, capsys, tmp_path, assets):
    (tmp_path / "assets.json").write_text(assets)
    status, lines = check(config(f"assets_file = '{tmp_path}/assets.json'"), capsys)
    assert (status, len(lines)) == (1, 1)


def test_a_password_in_a_url_is_refused(config, capsys):
    path = config()
    path.write_text("ledger = 'postgresql://user:hidden@host/db'")
    status, lines = check(path, capsys)
    assert status == 1
    assert "must hold no password" in lines[0]
    assert "hidden" not in "".join(lines)


def test_the_environment_overrules_the_file_and_a_mistyped_name_is_noticed(config, monkeypatch):
    monkeypatch.setenv("HOLDFIRE_BODY_BYTES_MAX", "2048")
    monkeypatch.setenv("HOLDFIRE_HOSTS", '["a.example"]')
    monkeypatch.setenv(AUTOFUND_VARIABLE, "7")
    settings = Settings.read(config("body_bytes_max = 4096"))
    assert settings.body_bytes_max == 2_048
    assert settings.hosts == ("a.example",)
    assert settings.max_autofund_lamports_per_user_per_day == 7
    monkeypatch.setenv("HOLDFIRE_BODY_BYTE_MAX", "2048")
    with pytest.raises(SettingsRefused, match="`HOLDFIRE_BODY_BYTE_MAX`: there is no such setting"):
        Settings.read(config())


def links(name, address, url, port="8787"):
    """Return what Kubernetes sets for a Service of one port."""
    port_name = f"{name}_PORT_{port}_TCP"
    return {
        f"{name}_SERVICE_HOST": address,
        f"{name}_SERVICE_PORT": port,
        f"{name}_SERVICE_PORT_HTTP": port,
        f"{name}_PORT": url,
        port_name: url,
        f"{port_name}_PROTO": "tcp",
        f"{port_name}_PORT": port,
        f"{port_name}_ADDR": address,
    }


LINKS = links("HOLDFIRE", "10.3.104.46", "tcp://10.3.104.46:8787")
LINKS |= links("HOLDFIRE_PRICES", "fd00::2e", "tcp://[fd00::2e]:8788", "8788")


def test_what_kubernetes_sets_beside_a_service_of_our_name_is_left_be(config, monkeypatch):
    for name, told in LINKS.items():
        monkeypatch.setenv(name, told)
    assert Settings.read(config()).port == 0
    assert Settings().port == 8_787
    monkeypatch.setenv("HOLDFIRE_PORT", "9000")
    assert Settings.read(config()).port == 9_000


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("HOLDFIRE_PORTS", "8787"),
        ("HOLDFIRE_PORT_8787_TCP_HOST", "10.3.104.46"),
        ("HOLDFIRE_PORT_8787_TCP_PORT", "8788"),  # of another port than its name says
        ("HOLDFIRE_PORT_8787_TCP_PROTO", "udp"),
        ("HOLDFIRE_PORT_8787_TCP", "http://10.3.104.46:8787"),
        ("HOLDFIRE_PORT_8787_TCP_ADDR", "db.example"),
        ("HOLDFIRE_SERVICE_PORT", "eight"),
        ("HOLDFIRE_SERVICE_HOST", "db.example"),
        ("HOLDFIRE_LEDGER_SERVICE_PORT", "5432"),  # of a Service that has no host
        ("HOLDFIRE_LEDGER_PORT", "tcp://10.3.104.46:5432"),
    ],
)
def test_any_other_variable_of_our_name_is_refused_beside_those(config, monkeypatch, name, told):
    for each, value in (LINKS | {name: told}).items():
        monkeypatch.setenv(each, value)
    with pytest.raises(SettingsRefused, match=f"`{name}`: there is no such setting"):
        Settings.read(config())


def test_an_address_for_a_port_is_refused_where_no_service_stands(config, monkeypatch):
    monkeypatch.setenv("HOLDFIRE_PORT", LINKS["HOLDFIRE_PORT"])
    with pytest.raises(SettingsRefused, match="`port`: "):
        Settings.read(config())


def test_where_nobody_says_who_connects_a_ledger_in_a_file_is_not_served(config, capsys, tmp_path, monkeypatch):
    """Its operator's socket is for Linux only: said before anything is opened."""
    monkeypatch.delattr("socket.SO_PEERCRED")
    assert check(config(), capsys) == (1, [f"`{tmp_path}/ledger.db`: {LINUX_ONLY}; a ledger on PostgreSQL needs none"])
    assert main(["serve", "--config", str(config())]) == 1
    assert LINUX_ONLY in capsys.readouterr().err
    assert not (tmp_path / "ledger.db").exists()


def test_unset_the_environments_limit_is_nothing(monkeypatch):
    monkeypatch.delenv(AUTOFUND_VARIABLE, raising=False)
    assert Settings().max_autofund_lamports_per_user_per_day == 0


def test_a_file_that_is_not_there_is_named(capsys, tmp_path):
    assert main(["config", "check", str(tmp_path / "nowhere.toml")]) == 1
    assert "nowhere.toml" in capsys.readouterr().err


def test_the_page_is_what_the_model_says():
    assert (DOCS / "reference" / "settings.md").read_text("utf-8") == GENERATOR["page"]()


def test_the_file_that_the_page_shows_is_one():
    page = (DOCS / "how-to" / "run-the-service.md").read_text("utf-8")
    (shown,) = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert Settings(**tomllib.loads(shown)).sign_in_domain == "agents.example.org"


def test_a_file_that_is_no_text_is_told_in_our_words(tmp_path):
    (tmp_path / "s.toml").write_bytes(b"port = 1\xff\n")
    with pytest.raises(SettingsRefused, match="must be UTF-8, but byte 8 is not"):
        Settings.read(tmp_path / "s.toml")
