"""Checks of an output directory: the store, WARC files, pages/, takedowns."""
