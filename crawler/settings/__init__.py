"""Configuration: TOML, environment and overrides in, frozen settings out, every error with its place."""

from crawler.settings.configuration_errors import ConfigurationError, Problem
from crawler.settings.loading import Loaded, load
from crawler.settings.settings import Changes, Mode, Settings, changes
from crawler.settings.show import Shown

__all__ = ["Changes", "ConfigurationError", "Loaded", "Mode", "Problem", "Settings", "Shown", "changes", "load"]
