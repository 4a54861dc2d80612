"""The frontier of one process: a SQLite file."""
