"""HTML and XHTML pages: their tags, what these say, and the links they refer to."""
