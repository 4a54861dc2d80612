"""Monitoring of a crawl: counters, rates, status, health, events, and the summary at its end."""
