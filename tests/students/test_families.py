"""Students of any family: what its layers share is read off the network itself."""

import pytest
import torch
from families import FAMILIES
from torch import nn
from torch.nn import functional as F

from kd_plugins.features.layer_outputs import example_images
from kd_plugins.students import inherit
from kd_plugins.teachers import build_source

COUNTS_DEAD = ("BSRN", "SwinIR", "SwinIR of fewer heads", "Uformer", "SCUNet", "HAT", "SAFMN", "PLKSR", "FFTformer")


def build(block, seed=0, **changes):
    """A network with no zero and no one in its weights."""
    torch.manual_seed(seed)
    net = build_source({**block, **changes}, "teacher").eval()
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return net


@pytest.mark.parametrize("family", FAMILIES)
def test_a_smaller_student_of_a_family_starts_from_its_teacher(family):
    """`inherit` proves by itself that the teacher's channels, shuffled as it read them, make the same image."""
    block, changes = FAMILIES[family]
    teacher, student = build(block), build(block, 1, **changes)
    before = {name: p.clone() for name, p in student.named_parameters()}
    whole = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    kept = inherit(student, teacher)
    assert all(not torch.equal(before[name], p) for name, p in student.named_parameters())
    assert all(torch.equal(whole[name], tensor) for name, tensor in teacher.state_dict().items())
    x = example_images(teacher, 32, 32, torch.device("cpu"))[0][:, :3]
    assert student(x).isfinite().all() and student(x).shape == teacher(x).shape
    narrower = [layer for layer, index in kept.items() if len(index) and index.max() >= len(index)]
    assert narrower and all(len(index.unique()) == len(index) for index in kept.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_its_teachers_own_arguments_is_its_teacher(family):
    block, _ = FAMILIES[family]
    teacher, student = build(block), build(block, 1)
    x = example_images(teacher, 32, 32, torch.device("cpu"))[0][:, :3]
    assert not torch.equal(student(x), teacher(x))
    inherit(student, teacher)
    assert torch.equal(student(x), teacher(x))


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in COUNTS_DEAD])
def test_a_teacher_that_uses_some_channels_only_is_the_student_that_keeps_them(family):
    """A wide teacher is filled with a narrow one, what is added is dead; not where statistics would count dead channels."""
    block, changes = FAMILIES[family]
    narrow = {**block, **{key: value for key, value in changes.items() if key in ("num_feat", "num_grow_ch", "nc")}}
    small, teacher, student = (net.double() for net in (build(narrow), build(block), build(narrow, 1)))
    with torch.no_grad():
        for name, mine in small.named_parameters():
            theirs = teacher.get_parameter(name)
            alive = torch.zeros_like(theirs)
            alive[torch.meshgrid(*map(_first, mine.shape, theirs.shape), indexing="ij")] = mine
            theirs.copy_(alive)
    inherit(student, teacher, "magnitude")
    x = example_images(teacher, 32, 32, torch.device("cpu"))[0][:, :3].double()
    torch.testing.assert_close(teacher(x), small(x))
    torch.testing.assert_close(student(x), small(x))


def _first(n, m):
    """The first n of m channels; of RRDBNet's concatenations (8 + 4 + 4 ... channels) the first half of each part."""
    if m in (12, 16, 20, 24) and 2 * n == m:
        return torch.cat([torch.arange(4), *(torch.arange(2) + 8 + 4 * part for part in range((m - 8) // 4))])
    return torch.arange(n)


class Odd(nn.Module):
    """A small network with a part that differs from case to case."""

    def __init__(self, part, width=8):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.part = part(width)

    def forward(self, x):
        return self.last(self.part(self.first(x)))


class Cumulative(nn.Module):
    def __init__(self, width):
        super().__init__()

    def forward(self, x):
        return x.cumsum(1)


class Hidden(nn.Conv2d):
    """Reads its weight behind PyTorch's back, as no trace sees it."""

    def __init__(self, width):
        super().__init__(width, width, 1)

    def forward(self, x):
        return x + torch.from_numpy(F.conv2d(x, self.weight, self.bias).detach().numpy().copy())


class Ramp(nn.Module):
    """Channels are not alike: each has a factor of its own, which is no weight."""

    def __init__(self, width):
        super().__init__()
        self.factor = torch.arange(1.0, width + 1).view(1, -1, 1, 1)

    def forward(self, x):
        return x * self.factor


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (Cumulative, "part: cumsum is not understood"),
        (Hidden, "shuffling them changes|does not follow"),
        (Ramp, "shuffling them changes the image"),
    ],
)
def test_what_is_not_understood_is_refused_and_leaves_the_student_alone(part, said):
    teacher, student = Odd(part), Odd(part, 4)
    before = {name: p.clone() for name, p in student.state_dict().items()}
    with pytest.raises(ValueError, match=said):
        inherit(student, teacher)
    assert all(torch.equal(before[name], p) for name, p in student.state_dict().items())


@pytest.mark.parametrize(
    "part",
    [
        lambda width: nn.Conv2d(width, width, 3, padding=1, groups=2),
        lambda width: nn.Conv2d(width, width, 3, padding=1, groups=width // 2),
        lambda width: nn.Sequential(nn.Conv2d(width, 3 * width, 3, padding=1, groups=width), nn.Conv2d(3 * width, width, 1)),
        lambda width: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * width, width, 1), nn.Upsample(scale_factor=2)),
        lambda width: nn.Sequential(nn.ChannelShuffle(2), nn.GroupNorm(2, width), nn.PReLU(width)),
        lambda width: nn.ConvTranspose2d(width, width, 3, padding=1),
        lambda width: nn.Sequential(nn.BatchNorm2d(width), nn.GLU(1), nn.Conv2d(width // 2, width, 1)),
    ],
    ids=["groups", "groups of two", "three times each", "unshuffle", "channel shuffle", "transposed", "gate"],
)
def test_layers_of_all_kinds_are_read(part):
    torch.manual_seed(0)
    teacher, student = Odd(part), Odd(part, 4)
    inherit(student, teacher)
    whole = Odd(part)
    inherit(whole, teacher)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(whole.eval()(x), teacher.eval()(x))
