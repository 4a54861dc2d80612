"""A small believable site, served over TLS on loopback, for `make run` and the tests."""
