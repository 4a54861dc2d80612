"""Servers that do no HTTP: they say the same bytes to whoever connects, or nothing at all."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def saying(greeting: bytes | None) -> Iterator[int]:
    """A port on 127.0.0.1 that takes every connection, says `greeting` once it was spoken to, and hangs up; with None
    it says nothing and holds the connection.
    """
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):  # the listener was shut: the block has ended
                while True:
                    peer, _ = listener.accept()
                    held.append(peer)
                    if greeting is not None:
                        with contextlib.suppress(OSError):
                            peer.recv(65_536)
                            peer.sendall(greeting)
                        peer.close()

        thread = threading.Thread(target=serve, name="odd-server")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for peer in held:
                peer.close()


def closed_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
