"""SLKD: Simultaneous Learning Knowledge Distillation (arXiv 2501.09268, ICASSP 2025)."""

from __future__ import annotations

from basicsr.utils.registry import MODEL_REGISTRY

from kd_plugins.models.distillation_model import DistillationModel


@MODEL_REGISTRY.register()
class SLKDModel(DistillationModel):
    """Two teachers, one student: L = L1(S(x), y) + 0.5 KL(T_A(x) || S(x)) + 0.1 L_NC + 0.1 L_ET.

    Teacher A sees the degraded image; the student's encoder follows A's through the BRISQUE extractor (degradation removal
    learning, L_NC). Teacher B sees the clean image; the student's decoder follows B's through the PIQE extractor (image
    reconstruction learning, L_ET). The three weights are the paper's, which term gets which is ours: docs/slkd.md tells
    the two apart.
    """

    default_pixel = {"type": "L1Loss"}
    default_terms = {
        "kl": {"type": "SpatialKLLoss", "between": "output", "view": "degraded", "loss_weight": 0.5},
        "nc": {"type": "BrisqueFeatureLoss", "between": "encoder", "view": "degraded", "loss_weight": 0.1},
        "et": {"type": "PiqeFeatureLoss", "between": "decoder", "view": "clean", "loss_weight": 0.1},
    }
