"""Measures the program beside its peers; `python -m bench`."""
