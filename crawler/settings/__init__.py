"""Configuration: TOML, environment and overrides become frozen settings; every error has its location."""
