"""Lists of URLs that sites publish for programs: sitemaps and feeds."""
