"""A registry of assets in a file: what symbols and mints in permits stand for.

A JSON array of objects with `symbol`, `mint`, `decimals` and `tokenProgram`. It is asked at activation only: what a
user signed stays resolved as it was, whatever becomes of the file.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from executor.assets import Asset, KnownAssets

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_assets"]


def read_assets(path: Path) -> KnownAssets:
    """Return the assets in the file at `path`.

    Raises:
        OSError: it can't be read.
        ValueError: it isn't such an array, or two of its assets share a symbol or a mint.

    """
    listed = json.loads(path.read_text("utf-8"))
    if not isinstance(listed, list):
        raise ValueError(f"`{path}` must hold a JSON array of assets")  # noqa: TRY004 - as for any other content
    return KnownAssets(Asset.from_json_object(each) for each in listed)
