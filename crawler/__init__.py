"""A long-running web crawler daemon. Start reading at docs/ARCHITECTURE.md, then `app.py`."""

__version__ = "0.1.0"
