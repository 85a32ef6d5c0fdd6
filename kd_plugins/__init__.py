"""Knowledge distillation for image restoration, as a plugin for BasicSR.

Importing the package registers its architectures, datasets, extractors, losses, metrics and models with BasicSR.
"""

from kd_plugins import _signals

_signals.catch_early()

from kd_plugins import _compat  # noqa: E402

_compat.apply()

from kd_plugins import archs, data, extractors, losses, metrics, models  # noqa: E402

__version__ = "0.1.0"
__all__ = ["__version__", "archs", "data", "extractors", "losses", "metrics", "models"]
