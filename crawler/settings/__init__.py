"""Configuration: TOML, environment and overrides in, frozen settings out, every error with its place."""
