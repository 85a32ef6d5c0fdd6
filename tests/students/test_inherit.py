"""A student inherits whole paths of its teacher: one choice of channels wherever they are shared, at the same size."""

import copy
import re

import pytest
import skimage.data
import torch
from torch import nn

from kd_plugins.archs import Restormer
from kd_plugins.archs.adapter import Adapter
from kd_plugins.archs.nafnet_arch import NAFNet
from kd_plugins.students import first_order, inherit
from kd_plugins.students.depth import even_blocks

RESTORMER = {"dim": 12, "num_blocks": [1, 1, 2, 3], "num_refinement_blocks": 2, "heads": [1, 2, 2, 4]}
NAFNET = {"width": 8, "middle_blk_num": 3, "enc_blk_nums": [1, 2], "dec_blk_nums": [2, 1]}
TEACHERS = {
    "Restormer": (Restormer, RESTORMER),
    "Restormer of two pixels": (Restormer, {**RESTORMER, "inp_channels": 6, "dual_pixel_task": True, "bias": True}),
    "Restormer without bias": (Restormer, {**RESTORMER, "LayerNorm_type": "BiasFree"}),
    "NAFNet": (NAFNet, NAFNET),
}
SMALL = {
    "Restormer": {"dim": 8, "num_blocks": [1, 0, 1, 2], "num_refinement_blocks": 1, "ffn_expansion_factor": 2.1},
    "NAFNet": {"width": 5, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [0, 1]},
}


def build(kind, seed=0, **changes):
    """A network with no zero, no one and no symmetry in its weights."""
    torch.manual_seed(seed)
    make, options = TEACHERS[kind]
    net = make(**{**options, **changes})
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
    return net


def small(kind):
    return build(kind, 1, **SMALL[kind.split()[0]])


def photo(net, size=32):
    image = torch.from_numpy(skimage.data.astronaut()[30 : 30 + size, 200 : 200 + size]).permute(2, 0, 1)[None] / 255
    channels = next(p for p in net.parameters() if p.dim() == 4 and p.shape[2:] == (3, 3)).shape[1]
    return torch.cat([image, image.flip(-1)], 1)[:, :channels]


def outputs(net, layers, x):
    """What each named layer puts out."""
    seen = {}
    modules = dict(net.named_modules())
    for layer in layers:
        modules[layer].register_forward_hook(lambda _module, _args, out, layer=layer: seen.setdefault(layer, out))
    net(x)
    return seen


@pytest.mark.parametrize("kind", TEACHERS)
@pytest.mark.parametrize("channels", ["magnitude", "first"])
def test_a_student_of_the_same_size_is_its_teacher(kind, channels):
    teacher, student = build(kind), build(kind, 1)
    x = photo(teacher)
    assert not torch.equal(student(x), teacher(x))
    kept = inherit(student, teacher, channels)
    assert torch.equal(student(x), teacher(x))
    assert all(torch.equal(index, torch.arange(len(index))) for index in kept.values())


@pytest.mark.parametrize("kind", TEACHERS)
@pytest.mark.parametrize("channels", ["magnitude", "first"])
def test_each_layer_answers_with_channels_of_its_own_width(kind, channels):
    teacher, student = build(kind), small(kind)
    kept = inherit(student, teacher, channels)
    x = photo(teacher)
    mine, theirs = outputs(student, kept, x), outputs(teacher, kept, x)
    for layer, index in kept.items():
        if layer not in mine:  # a block's container that was never called
            continue
        assert len(index) == mine[layer].shape[1], layer
        assert len(index.unique()) == len(index), layer
        assert index.max() < theirs[layer].shape[1], layer
    first = "intro" if "intro" in kept else "patch_embed"
    torch.testing.assert_close(mine[first], theirs[first][:, kept[first]])  # it reads the whole image: nothing to scale


def test_the_strongest_channels_are_kept_and_first_keeps_the_first():
    teacher, student = build("NAFNet"), small("NAFNet")
    strong = torch.tensor([1, 2, 4, 6, 7])
    with torch.no_grad():
        teacher.intro.weight[strong] *= 100
    assert torch.equal(inherit(student, teacher)["encoders.0"], strong)
    assert torch.equal(inherit(student, teacher, "first")["encoders.0"], torch.arange(5))


def test_every_head_keeps_equally_many_channels_and_values_keep_those_of_keys():
    teacher, student = build("Restormer"), small("Restormer")
    with torch.no_grad():  # each kept row tells where it comes from
        rows = teacher.latent[0].attn.qkv_dwconv.weight
        rows.copy_(torch.arange(1.0, rows.shape[0] + 1).view(-1, 1, 1, 1).expand_as(rows))
    inherit(student, teacher)
    query, key, value = (student.latent[0].attn.qkv_dwconv.weight[:, 0, 0, 0].long() - 1).chunk(3)
    assert torch.equal(key - 96, value - 192)
    for index in (query, key - 96):
        assert torch.equal(index // 24, torch.arange(4).repeat_interleave(16))


def test_skipped_blocks_leave_the_others_at_even_spacing():
    assert [even_blocks(2, 6), even_blocks(3, 6), even_blocks(1, 2), even_blocks(4, 4), even_blocks(0, 3)] == [
        [1, 4], [1, 3, 5], [1], [0, 1, 2, 3], [],
    ]  # fmt: skip
    teacher, student = build("Restormer"), build("Restormer", 1, num_blocks=[1, 1, 2, 2])
    inherit(student, teacher)
    for mine, theirs in enumerate(even_blocks(2, 3)):
        assert torch.equal(student.latent[mine].attn.qkv.weight, teacher.latent[theirs].attn.qkv.weight)


@pytest.mark.parametrize("kind", ["Restormer", "NAFNet"])
@pytest.mark.parametrize("channels", ["magnitude", "first"])
def test_activations_of_a_student_of_half_the_width_keep_their_size(kind, channels):
    """On average over teachers: which few channels of a small one are kept is chance."""
    make, options = TEACHERS[kind]
    width = "dim" if kind == "Restormer" else "width"
    ratios = {}
    for seed in range(6):
        torch.manual_seed(seed)
        teacher, student = make(**{**options, width: 16}), make(**{**options, width: 8})
        with torch.no_grad():
            for name, tensor in teacher.named_parameters():
                if name.endswith(("beta", "gamma")):  # NAFNet starts with its blocks switched off
                    tensor.fill_(1.0)
        kept = inherit(student, teacher, channels)
        x = photo(teacher, 64)
        with torch.no_grad():
            mine, theirs = outputs(student, kept, x), outputs(teacher, kept, x)
        for layer, index in kept.items():
            if re.fullmatch(r"\w+(\.\d+)*", layer):  # what runs between blocks
                ratios.setdefault(layer, []).append((mine[layer].std() / theirs[layer][:, index].std()).log())
    means = {layer: torch.stack(logs).mean().exp().item() for layer, logs in ratios.items()}
    assert all(1 / 1.5 < mean < 1.5 for mean in means.values()), means


class ChannelAttention(nn.Module):
    """Each channel answers with a mean of the channels, the weights on the left of the product or on the right."""

    def __init__(self, dim, turned):
        super().__init__()
        self.turned = turned
        self.qkv, self.out = nn.Conv2d(3, 3 * dim, 1), nn.Conv2d(dim, 3, 1)

    def forward(self, x):
        q, k, v = self.qkv(x).flatten(2).chunk(3, 1)
        weights = (q @ k.mT).softmax(-1)
        answer = (v.mT @ weights.mT).mT if self.turned else weights @ v
        return self.out(answer.unflatten(2, x.shape[2:]))


def test_a_mean_over_channels_is_one_on_either_side_of_a_product():
    students = []
    for turned in (False, True):
        torch.manual_seed(0)
        teacher, student = ChannelAttention(16, turned), ChannelAttention(8, turned)
        inherit(student, teacher, "magnitude")
        students.append(student.state_dict())
    assert all(torch.equal(weight, students[1][name]) for name, weight in students[0].items())


@pytest.mark.parametrize("kind", ["Restormer", "NAFNet"])
def test_leaving_out_dead_channels_changes_nothing(kind):
    """The hidden channels that are left out are those that nothing writes or reads."""
    teacher = build(kind)
    if kind == "NAFNet":
        teacher.middle_blks[0].conv5.weight.data[:, ::2] = 0
        teacher.middle_blks[0].conv4.weight.data[::2] = 0
        pair = [teacher, build(kind)]
        layer = pair[1].middle_blks[0]
        layer.conv4, layer.conv5 = nn.Conv2d(32, 32, 1), nn.Conv2d(16, 32, 1)
    else:
        pair = [teacher, build(kind, 1, ffn_expansion_factor=1.33)]
        for module in teacher.modules():
            if hasattr(module, "project_in"):
                hidden = module.project_out.weight.shape[1]
                dead = torch.arange(hidden) % 2 == (hidden + 1) % 2
                module.project_out.weight.data[:, dead] = 0
                module.project_in.weight.data[dead.repeat(2)] = 0
    inherit(pair[1], pair[0])
    x = photo(teacher)
    torch.testing.assert_close(pair[1](x), teacher(x), rtol=1e-4, atol=1e-4)


def test_an_optimizer_built_before_still_holds_the_parameters():
    teacher, student = build("NAFNet"), small("NAFNet")
    before = {name: (id(p), p.data_ptr()) for name, p in student.named_parameters()}
    inherit(student, teacher)
    assert before == {name: (id(p), p.data_ptr()) for name, p in student.named_parameters()}
    assert all(p.requires_grad and p.grad_fn is None for p in student.parameters())


REFUSED = {
    "wider": ("Restormer", {"dim": 16}, "wider"),
    "deeper": ("Restormer", {"num_blocks": [1, 1, 2, 4]}, "4 blocks in latent.*3"),
    "more levels": ("NAFNet", {"enc_blk_nums": [1, 1, 1], "dec_blk_nums": [1, 1, 1]}, "deeper: 3 blocks in encoders"),
    "fewer levels": (
        "NAFNet",
        {"enc_blk_nums": [1], "dec_blk_nums": [1]},
        "a run of similar blocks|not in the teacher|nothing for",
    ),
    "another image": ("NAFNet", {"img_channel": 1}, "intro.weight"),
    "other heads": ("Restormer", {"heads": [1, 2, 2, 2]}, "latent.0.attn.project_out.* do not|latent.0.attn.*does not follow"),
    "another norm": ("Restormer", {"LayerNorm_type": "BiasFree"}, "norm1.body.bias"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_inherit_is_refused_and_left_alone(case):
    kind, changes, said = REFUSED[case]
    teacher, student = build(kind), build(kind, 1, **changes)
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(ValueError, match=said):
        inherit(student, teacher)
    assert all(torch.equal(before[name], tensor) for name, tensor in student.state_dict().items())


def test_a_mixed_pair_and_unknown_channels_are_named():
    with pytest.raises(ValueError, match="NAFNet.*Restormer"):
        inherit(build("NAFNet"), build("Restormer"))
    with pytest.raises(ValueError, match="magnitude"):
        inherit(build("NAFNet"), build("NAFNet"), channels="magnitud")
    with pytest.raises(ValueError, match="importance"):
        inherit(build("NAFNet"), build("NAFNet"), channels="importance")


@pytest.mark.parametrize("kind", ["Restormer", "NAFNet"])
def test_channels_that_the_image_depends_on_most_are_kept(kind):
    """Strong weights that nothing reads are worth nothing to it, and much to their magnitude."""
    teacher, student = build(kind), small(kind)
    block = teacher.latent[0].ffn if kind == "Restormer" else teacher.middle_blks[1]
    write, read = (block.project_in, block.project_out) if kind == "Restormer" else (block.conv4, block.conv5)
    hidden = read.weight.shape[1]
    with torch.no_grad():
        write.weight[::hidden] *= 1000  # both halves of channel 0
        read.weight[:, 0] = 0
    x = photo(teacher)
    worth = first_order(teacher, [{"lq": x, "gt": x}, {"lq": x.flip(-1)}])
    assert worth.keys() == dict(teacher.named_parameters()).keys()
    assert all((value >= 0).all() for value in worth.values()) and all(p.grad is None for p in teacher.parameters())
    found = {}
    for channels in ("magnitude", "importance"):
        inherit(student, teacher, channels, worth)
        mine = student.middle_blks[0].conv4 if kind == "NAFNet" else student.latent[0].ffn.project_in
        found[channels] = mine.weight.abs().max().item()
    assert found["importance"] < found["magnitude"] / 10


def test_importance_without_a_batch_or_by_images_of_another_shape_is_refused():
    teacher = build("NAFNet")
    with pytest.raises(ValueError, match="no batches"):
        first_order(teacher, [])
    x = torch.rand(1, 3, 16, 16)
    for gt in (x[:, :1], x[..., 8:]):  # gray images would be stretched
        with pytest.raises(ValueError, match="importance: the teacher's images are .*, the clean images .*, expected the same"):
            first_order(teacher, [{"lq": x, "gt": gt}])


@pytest.mark.parametrize(("key", "value"), [("value_range", 255), ("mean", 0.5)])
def test_weights_for_other_values_are_refused(key, value):
    teacher, student = build("NAFNet"), small("NAFNet")
    Adapter(**{key: value}).attach(teacher)
    with pytest.raises(ValueError, match=f"inherit: {key}: the student's is .*, the teacher's .*{value}"):
        inherit(student, teacher)
    Adapter(**{key: value}).attach(student)
    inherit(student, teacher)
