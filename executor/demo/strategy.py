"""The demo's strategy: it reads a request, fires it through a socket, and prints what became of it."""

from __future__ import annotations

import json
import sys

from executor.request import FireRequest
from executor.service.client import FireClient


def main() -> None:
    """Fire the request on standard input through the socket that the command line names."""
    request = FireRequest.from_json_object(json.load(sys.stdin))
    json.dump(FireClient(sys.argv[1]).fire_now(request).to_json_object(), sys.stdout)


if __name__ == "__main__":
    main()
