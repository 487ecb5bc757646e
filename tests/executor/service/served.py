"""An application over a real socket, served by uvicorn in a thread, and what reads a stream of it."""

import contextlib
import threading

import httpx

from executor.service import bind
from executor.service.server import _Server


@contextlib.contextmanager
def on_a_port(app, port=0, **websocket):
    """Serve `app`; yield its port."""
    bound = bind("127.0.0.1", port)
    server = _Server(app, **websocket)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@contextlib.contextmanager
def served(app):
    """Serve `app`; yield its address."""
    with on_a_port(app) as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def stream(url, headers=None):
    """Open a stream and hand over an iterator of its frames, the first already read."""
    with httpx.Client(timeout=60) as client, client.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield frames(response.iter_lines())


def frames(lines):
    fields = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            yield fields
            fields = {}
