"""Models, registered in BasicSR's MODEL_REGISTRY: the generic one, and a subclass for each published method."""

from kd_plugins.models.dckd_model import DCKDModel
from kd_plugins.models.distillation_model import DistillationModel
from kd_plugins.models.psd_model import PSDModel
from kd_plugins.models.skd_model import SKDModel
from kd_plugins.models.slkd_model import SLKDModel

__all__ = ["DCKDModel", "DistillationModel", "PSDModel", "SKDModel", "SLKDModel"]
