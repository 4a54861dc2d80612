"""HTTP/1.1 messages without I/O: requests, heads, framing, bodies."""
