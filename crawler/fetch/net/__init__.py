"""From host names to open transports: names, addresses, proxies, TLS."""
