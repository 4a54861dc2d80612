"""What h11 makes of a response: a second opinion on framing."""

import h11


def whole_by_h11(data: bytes, eof: bool | None) -> tuple[int, bytes] | None:
    """Status and payload of the answer to one GET, or None if h11 refuses it or does not find it whole."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    status, payload = 0, bytearray()
    try:
        connection.receive_data(data)
        if eof is not None:
            connection.receive_data(b"")
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                payload += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, bytes(payload)
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None
