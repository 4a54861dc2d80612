"""Where what was fetched goes: WARC files and pages/."""
