"""What becomes of a leased URL: admission, fetch, reading, discovered URLs, traps, revisits."""
