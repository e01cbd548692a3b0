"""Configuration: keys and defaults, and reading them from YAML and the command line."""

from .defaults import add_se_det_config, get_cfg, register_keys
from .loading import load_config, merge_overrides
from .validation import validate_config

__all__ = ["add_se_det_config", "get_cfg", "load_config", "merge_overrides", "register_keys", "validate_config"]
