"""Values and decisions without I/O: no clock, no asyncio, no sockets, no logging."""
