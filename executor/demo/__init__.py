"""`executor demo`: one permit, refusals with their reasons, and real fires, all on this machine.

A SQLite file, a Solana VM in this process, prices over a hub's WebSocket, and a clock that the story moves on. Every
step says what it expects; the demo succeeds only if all of it happened.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from rich.console import Console

from executor.demo.market import StreamedWorld
from executor.demo.story import LASTS_S, Story
from executor.errors import ExecutorError
from executor.service import bind

__all__ = ["run"]


def run(folder: Path | None, seed: int | None, port: int | None) -> int:
    """Tell the story; return 0 if everything happened as said, else 1.

    Args:
        folder: where to write; None: a new temporary folder.
        seed: makes ids and keys reproducible.
        port: keep the event stream up there afterwards, until interrupted; None: don't; 0: any free port.

    Raises:
        ExecutorError: the folder holds a ledger already, or can't be used; or the port is taken.
        OSError: the folder can't be written.

    """
    try:
        bound = None if port is None else bind("127.0.0.1", port)
    except OSError as error:
        raise ExecutorError(f"`{error.filename}`: {error.strerror}: name another port with --port") from None
    folder = (folder or Path(tempfile.mkdtemp(prefix="holdfire-demo-"))).absolute()
    with StreamedWorld(folder, seed, lasts_s=LASTS_S) as world:
        story = Story(world, Console(soft_wrap=True, highlight=False, emoji=False))
        asyncio.run(story.tell())
        if bound is not None and not story.surprises:
            story.serve(bound)
    return 1 if story.surprises else 0
