"""PSD: distillation of wavelet bands, gated by the teacher's advantage (arXiv 2609.34795)."""

from __future__ import annotations

from basicsr.utils.registry import MODEL_REGISTRY

from kd_plugins.models.distillation_model import DistillationModel


@MODEL_REGISTRY.register()
class PSDModel(DistillationModel):
    """A teacher that is followed where it is right: L = L1(S(x), y) + eta (L_spec + 0.25 |S(x) - T(x)|²), eta = 1.

    L_spec compares the wavelet bands of both images where the teacher's are nearer the clean image's (`GatedWaveletLoss`). Teacher
    and student may be of any two architectures: images alone are compared. The weights are the paper's; its head for underwater
    images is left out, and eta, whose course the readable part does not give, is 1: `fade` on both terms is the option.
    """

    default_pixel = {"type": "L1Loss"}
    default_terms = {
        "spec": {"type": "GatedWaveletLoss", "between": "output", "view": "degraded", "loss_weight": 1.0},
        "img": {"type": "MSELoss", "between": "output", "view": "degraded", "loss_weight": 0.25},
    }
