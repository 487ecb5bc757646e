"""Writes reference/settings.md: `python docs/settings.py`. All that it says is the model's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from executor.service.settings import AUTOFUND_VARIABLE, PREFIX, Settings

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

PAGE: Final = Path(__file__).parent / "reference" / "settings.md"

TOP: Final = f"""\
<!-- Written by docs/settings.py: change executor/service/settings.py, and run that again. -->

# Settings

`executor serve --config FILE` reads a TOML file. Above it stands the environment: `{PREFIX}` and the setting's name in
capitals, lists as JSON. A name that nobody knows is refused, in the file and in the environment; only what Kubernetes
sets by itself beside a Service named `holdfire` is left be. `executor config check FILE` says in lines what is wrong,
or what will hold.

No secret stands in the file or in the environment: settings name files, and each file with a secret must be its owner's
alone (mode 0600), or root's and readable by a group that the service runs in (0440). A program that makes its own
`Settings` may give a function instead, which returns the secret's bytes. Nothing here grants authority to trade:
permits do that, within limits that lie sealed in the ledger. The one limit that the environment may set is
`{AUTOFUND_VARIABLE}`; unset, it is 0, and it must be what the ledger holds.

[How to run the service](../how-to/run-the-service.md) shows a whole file.

| setting | default | |
|---|---|---|
"""


def page() -> str:
    """Return the page."""
    rows = (_row(name, field) for name, field in Settings.model_fields.items())
    return TOP + "".join(rows)


def _row(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    default = field.default
    shown = "none" if default in (None, ()) else f"`{_toml(default)}`"
    bounds = {type(each).__name__.lower(): each for each in field.metadata}
    least, most = bounds.get("ge"), bounds.get("le")
    limits = f" {least.ge:,} to {most.le:,}." if least and most else ""
    said = " ".join((field.description or "").split())
    return f"| `{alias or name}` | {shown} | {said}{limits} |\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
