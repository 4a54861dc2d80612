"""One crawl: which URL is requested next, what becomes of the response, and how it is stored."""
