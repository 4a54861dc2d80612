"""Which URL is requested next, and when: host table, ready queue, rate limits, prefetch, leases."""
