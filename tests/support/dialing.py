"""Connections without a network: a dialer that opens them when told to, over transports that only note what is done."""

import asyncio

from crawler.core.models import Timings
from crawler.fetch.net.dial import Dialled


class Wire(asyncio.Transport):
    """A transport that only notes what is done to it. `closes_politely`: the peer answers close_notify."""

    def __init__(self, connection, closes_politely=True):
        super().__init__()
        self.connection = connection
        self.closes_politely = closes_politely
        self.calls = []

    def abort(self):
        self.calls.append("abort")
        asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def close(self):
        self.calls.append("close")
        if self.closes_politely:
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)


class Dialing:
    """Opens connections at once, or when the test lets it; `failures` are raised first."""

    def __init__(self):
        self.dialled = []
        self.failures = []
        self.gate = None
        self.ends_at_once = False
        self.closes_politely = True
        self.address = "192.0.2.1"

    async def dial(self, origin, factory):
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        connection = factory()
        connection.connection_made(Wire(connection, self.closes_politely))
        if self.ends_at_once:
            connection.connection_lost(None)
        self.dialled.append(connection)
        return connection, Dialled(self.address, origin.port, Timings(), "1.3", False, None)

    def keep_session(self, origin, ssl_object):
        raise AssertionError("there is no TLS here")
