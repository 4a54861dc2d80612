"""Why a URL was fetched or not, and the state of each host."""
