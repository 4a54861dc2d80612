"""Configuration: TOML, environment and overrides in, frozen settings out, every error with its place."""

from crawler.settings.loading import Loaded, load
from crawler.settings.problems import ConfigurationError, Problem
from crawler.settings.settings import Changes, Mode, Settings, changes
from crawler.settings.show import Shown

__all__ = ["Changes", "ConfigurationError", "Loaded", "Mode", "Problem", "Settings", "Shown", "changes", "load"]
