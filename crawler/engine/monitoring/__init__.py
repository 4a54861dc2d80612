"""What a crawl says of itself: counters, rates, status, health, events, and its end."""
