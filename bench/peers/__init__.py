"""Peers that have to be written to be measured: the same whole-site crawl with other libraries."""
