"""SKD: Soft Knowledge Distillation with Multi-dimensional Cross-net Attention (arXiv 2501.09321, ICASSP 2025)."""

from __future__ import annotations

from basicsr.utils.registry import MODEL_REGISTRY

from kd_plugins.models.distillation_model import DistillationModel


@MODEL_REGISTRY.register()
class SKDModel(DistillationModel):
    """One teacher, one student: L = L1(S(x), y) + alpha2 L_GK + alpha3 L_CL.

    L_GK lets student and teacher answer each other through attention, across channels and across positions, and compares them
    under a Gaussian kernel, at every stage. L_CL pulls S(x) towards T(x) and away from degraded images. alpha2 and alpha3 are the
    loss weights here; both are ours, as the paper's are not known (docs/skd.md).
    """

    default_pixel = {"type": "L1Loss"}
    default_terms = {
        "gk": {"type": "CrossNetAttentionLoss", "between": ["encoder", "decoder"], "view": "degraded", "loss_weight": 0.03},
        "cl": {"type": "ContrastiveImageLoss", "between": "output", "view": "degraded", "loss_weight": 0.005, "window": 16},
    }
