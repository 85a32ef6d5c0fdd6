"""DCKD: Dynamic Contrastive Knowledge Distillation (arXiv 2412.08939, AAAI 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from kd_plugins.arguments import build
from kd_plugins.data.negatives import NegativeInputs
from kd_plugins.extractors import TokenizerExtractor
from kd_plugins.losses.dckd_loss import Variant
from kd_plugins.models.distillation_model import DistillationModel
from kd_plugins.models.history import History

_IN_TOKENIZER_SPACE = ("ContrastRatioLoss", "CodeDistributionLoss")


@MODEL_REGISTRY.register()
class DCKDModel(DistillationModel):
    """A teacher above, the student's past below: L = L1(S(x), y) + L1(S(x), T(x)) + 0.1 L_dcl + 0.001 L_ce.

    L_dcl pulls S(x) towards T(x) and away from what a history model H, an older student, makes of degraded copies of x, in the
    space of a frozen VQ tokenizer. L_ce lets the student's assignment to the tokenizer's codes follow the teacher's. No feature
    of teacher or student is tapped: they may be of any two architectures. All constants are the paper's or its code's
    (docs/dckd.md).

    Option keys beside DistillationModel's, all of them optional:
        dckd:
            variant: `paper` or `official` (see `ContrastRatioLoss`, `CodeDistributionLoss`).
            tokenizer: arguments of TokenizerExtractor, {weights: FILE}; the bundled tokenizer without.
            history: decay, every, block (see `History`). H follows the EMA student; with `ema_decay: 0` the student itself.
            negatives: see `NegativeInputs`.
    """

    default_pixel = {"type": "L1Loss"}
    default_terms = {
        "logits": {"type": "L1Loss", "between": "output", "view": "degraded", "loss_weight": 1.0},
        "dcl": {"type": "ContrastRatioLoss", "between": "output", "view": "degraded", "loss_weight": 0.1},
        "ce": {"type": "CodeDistributionLoss", "between": "output", "view": "degraded", "loss_weight": 0.001},
    }
    makes_negatives = True
    option_blocks = {
        "dckd": {"variant": Variant | None, "tokenizer": TokenizerExtractor, "history": History, "negatives": NegativeInputs}
    }
    history: History | None = None

    def __init__(self, opt: dict[str, Any]) -> None:
        self.check_option_blocks(opt)
        self.settings = opt.get("dckd") or {}
        self.negative_inputs = build(NegativeInputs, self.settings.get("negatives"), ("dckd", "negatives"))
        super().__init__(opt)

    def term_blocks(self) -> dict[str, Any]:
        """As the option file has them; what `dckd` says holds where a block does not say otherwise."""
        shared = {"variant": self.settings.get("variant") or "paper"}
        if self.settings.get("tokenizer"):
            shared["extractor"] = {"type": "TokenizerExtractor", **self.settings["tokenizer"]}
        return {
            name: {**shared, **block} if isinstance(block, Mapping) and block.get("type") in _IN_TOKENIZER_SPACE else block
            for name, block in super().term_blocks().items()
        }

    def build_state(self) -> None:
        """Make the history model, a copy of the student that it follows."""
        if not self.wants_negatives:
            return
        net = self.build_copy()
        self.history = history = build(History, self.settings.get("history"), ("dckd", "history"), net, self._followed())
        first, total = history.schedule.interval(1), self.opt["train"].get("total_iter")
        if total and first > int(total):
            get_root_logger().warning(
                f"dckd:history:every: {first} is more than train:total_iter, {total}: the history model stays what the student "
                "starts as."
            )

    def _followed(self) -> nn.Module:
        return self.get_bare_model(self.net_g) if self.net_g_ema is None else self.net_g_ema

    def make_negatives(self) -> Tensor:
        """The history model's images of x and of degraded copies of it, one batch, without gradient: (J, N, C, H, W)."""
        assert self.history is not None
        return self.history(self.negative_inputs(self.lq)).unflatten(0, (self.negative_inputs.total, -1))

    def networks(self) -> dict[str, nn.Module]:
        """As DistillationModel, and the history model (net_history_*.pth)."""
        networks = super().networks()
        if self.history is not None:
            networks["net_history"] = self.history.net
        return networks

    def compiled_networks(self) -> dict[str, nn.Module]:
        """As DistillationModel, and the history model."""
        return {**super().compiled_networks(), **({} if self.history is None else {"history": self.history.net})}

    def after_step(self, iteration: int) -> None:
        """The history model follows the student."""
        if self.history is not None:
            self.history.follow(self._followed(), iteration)
