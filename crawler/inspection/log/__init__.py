"""Reading the logs of a crawl: rotated files, queries, totals, the history of a URL."""
