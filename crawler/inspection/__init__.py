"""Looking at a crawl from outside: its place, its logs, its store. Used by the command line and the status page alike.

Everything here reads. It works while the crawl runs and while it does not, and never waits for it.
"""
