"""Why a URL was fetched or not, and how the hosts of a crawl stand."""
