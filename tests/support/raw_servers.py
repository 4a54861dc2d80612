"""Servers without HTTP: they send the same bytes on every connection, or nothing."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sending(greeting: bytes | None) -> Iterator[int]:
    """A port on 127.0.0.1 that accepts every connection, sends `greeting` after the first bytes, and closes. With None
    it sends nothing and keeps the connection.
    """
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):  # the listener was closed: the block has ended
                while True:
                    peer, _ = listener.accept()
                    held.append(peer)
                    if greeting is not None:
                        with contextlib.suppress(OSError):
                            peer.recv(65_536)
                            peer.sendall(greeting)
                        peer.close()

        thread = threading.Thread(target=serve, name="raw-server")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for peer in held:
                peer.close()


def closed_port() -> int:
    """A port of 127.0.0.1 without a listener."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
