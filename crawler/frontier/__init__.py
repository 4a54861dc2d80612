"""The durable store of URLs, hosts and visits."""
