"""Knowledge distillation for image restoration, as a plugin for BasicSR.

Importing the package registers its architectures, losses, metrics, datasets and models with BasicSR.
"""

from kd_plugins import _compat

_compat.apply()

from kd_plugins import archs  # noqa: E402

__version__ = "0.1.0"
__all__ = ["__version__", "archs"]
