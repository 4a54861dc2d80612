"""A crawl seen from outside, by its logs, its store and its archive, for the command line and the status page.

All of it only reads, but for the takedown list. It works whether the crawl runs or not, and never waits for it.
"""
