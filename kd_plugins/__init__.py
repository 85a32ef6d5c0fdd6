"""Knowledge distillation for image restoration, as a plugin for BasicSR.

Importing the package registers its architectures, datasets, extractors, losses, metrics and models with BasicSR.
"""

from kd_plugins import _startup

__version__ = "0.1.0"
__all__ = ["__version__", "register"]


def register() -> None:
    """Repair what basicsr needs on today's libraries, and register everything with it.

    `import kd_plugins` does this, except in the `basicsr` command, which parses its arguments first.

    Raises:
        ImportError: PyTorch or BasicSR is not installed.
    """
    _startup.require_libraries()
    from kd_plugins import _compat

    _compat.apply()
    from kd_plugins import archs, data, extractors, losses, metrics, models  # noqa: F401


_startup.share_cores()
_startup.keep_freed_memory()
_command = _startup.command_line()
if _command is None:
    register()
elif _command[:1] == ["train"]:
    _startup.catch_signals()
