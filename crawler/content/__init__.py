"""Bytes in, values out: what a response's content says. Pure: no I/O, no clock, no logging."""
