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
        self.spoil = None
        """What to make of the next bytes that the newest connection answers, once; None: pass them on as they are."""
        self._is_stalled = False
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._pairs = set()
        self._newest = None
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self):
        """Close every connection now."""
        for pair in list(self._pairs):
            pair.end()

    def lose_server(self):
        """Close every connection at the server; its client hears nothing of that, and nothing else any more."""
        for pair in list(self._pairs):
            pair.lose(pair.server)

    def lose_client(self):
        """Close every connection at its client; the server hears nothing of that, and nothing else any more."""
        for pair in list(self._pairs):
            pair.lose(pair.client)

    def hold(self):
        """Pass nothing on for the connections that are open; others may be made meanwhile, and overtake them."""
        for pair in list(self._pairs):
            pair.flows.clear()

    def stall(self):
        """Pass nothing on any longer, with every connection open."""
        self._is_stalled = True
        self.hold()

    def flow(self):
        """Pass on again, what was held back too."""
        self._is_stalled = False
        for pair in list(self._pairs):
            pair.flows.set()

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
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # it breaks, and holds back nothing else
            pair = _Pair(client, server)
            if not self._is_stalled:
                pair.flows.set()
            self._pairs.add(pair)
            self._newest = pair
            self._start(pair, client, server, None)
            self._start(pair, server, client, self.cut_after)

    def _start(self, *arguments):
        self._threads.append(threading.Thread(target=self._pass_on, args=arguments))
        self._threads[-1].start()

    def _pass_on(self, pair, source, sink, left):
        with contextlib.suppress(OSError):
            while left != 0 and (data := source.recv(4096 if left is None else min(4096, left))):
                pair.flows.wait()
                if source is pair.server and pair is self._newest and self.spoil is not None:
                    data, self.spoil = self.spoil(data), None
                if pair.lost is None:
                    sink.sendall(data)
                left = None if left is None else left - len(data)
        if pair.lost is None:
            pair.end()
        pair.done(source)
        if pair.is_over:
            self._pairs.discard(pair)


class _Pair:
    """One connection: its two sockets."""

    def __init__(self, client, server):
        self.client, self.server = client, server
        self.flows = threading.Event()
        self.lost = None
        """The socket whose other end is gone without a word."""
        self._read_by = {client, server}

    @property
    def is_over(self):
        return not self._read_by

    def lose(self, gone):
        """Close `gone`, and keep the other open and silent."""
        self.lost = gone
        _shut(gone)

    def end(self):
        self.flows.set()
        _shut(self.client)
        _shut(self.server)

    def done(self, source):
        """Nobody reads `source` any more."""
        self._read_by.discard(source)
        source.close()


def _shut(each):
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
