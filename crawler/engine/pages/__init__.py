"""What becomes of a leased URL: URL policy, fetch, response processing, discovered URLs, traps, revisits."""
