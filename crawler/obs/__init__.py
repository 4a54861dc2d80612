"""Logging set-up, the log files, and the names of events."""
