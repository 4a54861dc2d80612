"""`crawler fetch`: one URL fetched as a crawl would fetch it, and what happened at each step."""
