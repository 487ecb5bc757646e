"""A TCP proxy on loopback that breaks connections in the ways that networks do."""

import contextlib
import socket
import threading


class FaultyProxy:
    """Passes bytes to `target`, a port on loopback that may change, and answers back, until told otherwise."""

    def __init__(self, target):
        self.target = target
        self.cut_after = None
        """Close each connection after so many bytes of the answer, wherever in a frame that is; None: never."""
        self._flows = threading.Event()
        self._flows.set()
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._sockets = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self):
        """Close every connection now."""
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def stall(self):
        """Pass nothing on any longer, with every connection open."""
        self._flows.clear()

    def flow(self):
        """Pass on again, what was held back too."""
        self._flows.set()

    def close(self):
        self.flow()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(60)
        self._listening.close()
        self.cut()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=60)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            self._sockets |= {client, server}
            self._start(client, server, None)
            self._start(server, client, self.cut_after)

    def _start(self, *arguments):
        self._threads.append(threading.Thread(target=self._pass_on, args=arguments))
        self._threads[-1].start()

    def _pass_on(self, source, sink, left):
        with contextlib.suppress(OSError):
            while left != 0 and (data := source.recv(4096 if left is None else min(4096, left))):
                self._flows.wait()
                sink.sendall(data)
                left = None if left is None else left - len(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._sockets.discard(source)
        source.close()
