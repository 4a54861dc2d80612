"""The frontier in a PostgreSQL database."""
