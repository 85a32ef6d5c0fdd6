"""Several processes train as one with the larger batch does: the same gradients, for each method and baseline."""

import copy

import pytest
import several
import torch


def term(kind, between, **arguments):
    return {"type": kind, "between": between, "view": "degraded", "loss_weight": 0.1, **arguments}


BASELINES = {
    "logits": term("L1Loss", "output"),
    "fitnet": term("FitNetFeatureLoss", "encoder"),
    "channel_kl": term("ChannelWiseKLLoss", "encoder", tau=0.2),
    "csd": term("ContrastiveImageLoss", "output", count=1, window=16, loss_weight=0.01),
    "at": term("AttentionTransferFeatureLoss", "decoder"),  # beside fitnet: a group with, a group without conversion
}
WITHOUT_CONVERSION = {
    "at": term("AttentionTransferFeatureLoss", ["encoder", "decoder"]),
    "fakd": term("SpatialAffinityFeatureLoss", "encoder"),
}


@pytest.fixture
def methods(options, tokenizer_file):
    """Options by name: each method, with random numbers that do not depend on the size of the batch, and the baselines."""
    options["train"]["optim_g"] = {"type": "SGD", "lr": 1e-4}
    options["init"] = "random"

    def make(model, distill=None, **keys):
        made = copy.deepcopy({**options, "model_type": model, **keys})
        made["train"].update(distill=distill or {}, pixel_opt={"type": "L1Loss"})
        return made

    settings = {"tokenizer": {"weights": str(tokenizer_file)}, "negatives": {"noise": 0.0}, "history": {"every": 1, "decay": 0.5}}
    consistency = {"type": "L1Loss", "between": "output", "view": "transformed"}
    made = {
        "SLKD": make("SLKDModel"),
        "SKD": make("SKDModel", {"gk": {"learnable": True}}),
        "DCKD": make("DCKDModel", {"consistency": consistency, "ce": {"loss_weight": 0.1}}, features=None, dckd=settings),
        "baselines": make("DistillationModel", BASELINES),
        "without_conversion": make("DistillationModel", WITHOUT_CONVERSION),
        "nothing": make("DistillationModel", teacher=None),
    }
    made["DCKD"]["train"]["transforms"] = {"invert": 1, "hflip": 1, "vflip": 0, "transpose": 0}
    return made


def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(methods, write, tmp_path):
    torch.manual_seed(7)
    clean, noise = torch.rand(4, 3, 32, 32), torch.tensor([0.02, 0.3, 0.1, 0.5]).view(4, 1, 1, 1)
    # samples that differ much: a ratio of means is then no mean of ratios
    torch.save({"gt": clean, "lq": (clean * (1 - noise) + noise * torch.rand(clean.shape))}, tmp_path / "batch.pt")
    several.in_one_and_in_two(str(tmp_path), [write(opt, f"{name}.yml") for name, opt in methods.items()])
    for name in methods:
        one, log = torch.load(tmp_path / f"{name}_0_of_1.pt")
        two = [torch.load(tmp_path / f"{name}_{rank}_of_2.pt") for rank in (0, 1)]
        assert two[0][1] == pytest.approx(log, rel=1e-4), name
        for step, mine in enumerate(one):
            size = float(torch.stack([grad.norm() for grad in mine.values()]).norm())
            for theirs, _ in two:
                assert theirs[step].keys() == mine.keys(), name
                differences = {key: float((theirs[step][key] - grad).abs().max()) for key, grad in mine.items()}
                assert max(differences.values()) <= 1e-5 * max(size, 1), (name, step, size, differences)
