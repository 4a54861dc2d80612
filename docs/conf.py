"""How `make docs` makes a site of this folder: https://www.sphinx-doc.org/en/master/usage/configuration.html"""

project = "crawlerd"
copyright = "the crawlerd authors, Apache-2.0"
extensions = ["myst_parser"]
exclude_patterns = ["crawler.1"]
nitpicky = True  # a reference that leads nowhere is a warning, and warnings are errors
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
html_theme = "furo"
html_title = "crawlerd"
html_copy_source = False
html_show_sphinx = False
