"""Configuration: keys and defaults, and reading them from YAML and the command line."""

from .defaults import add_se_det_config, get_cfg
from .limits import check_values
from .loading import load_config, merge_overrides

__all__ = ["add_se_det_config", "check_values", "get_cfg", "load_config", "merge_overrides"]
