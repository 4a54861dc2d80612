"""The HTTP client: names to addresses, addresses to connections, connections to responses."""
