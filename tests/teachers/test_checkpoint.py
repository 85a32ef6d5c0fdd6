"""Checkpoints are found, read, and loaded strictly."""

import argparse
import collections
import datetime
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from states import same
from torch import nn

from kd_plugins.teachers import checkpoint
from kd_plugins.teachers.checkpoint import find_checkpoint, load_strictly, read_checkpoint


def doubled(weights):
    return {key: value * 2 for key, value in weights.items()}


@pytest.mark.parametrize("key", ["params_ema", "params", "state_dict", "model_state_dict", "model", "net"])
def test_the_usual_keys_are_found(tmp_path, weights, key):
    torch.save({key: weights, "iter": 5}, tmp_path / "net.pth")
    read, network = read_checkpoint(tmp_path / "net.pth")
    assert same(read, weights) and network is None


def test_the_average_is_preferred_and_param_key_chooses(tmp_path, weights):
    torch.save({"params": weights, "params_ema": doubled(weights), "other": doubled(doubled(weights))}, tmp_path / "net.pth")
    assert same(read_checkpoint(tmp_path / "net.pth")[0], doubled(weights))
    assert same(read_checkpoint(tmp_path / "net.pth", "params")[0], weights)
    assert same(read_checkpoint(tmp_path / "net.pth", "other")[0], doubled(doubled(weights)))


def test_statistics_that_basicsrs_average_left_behind_are_those_of_the_student(tmp_path, weights):
    average = doubled(weights)
    student = {**weights, "1.running_mean": weights["1.running_mean"] + 3, "1.num_batches_tracked": torch.tensor(7)}
    torch.save({"params": student, "params_ema": average}, tmp_path / "net.pth")
    own = ("1.running_mean", "1.running_var", "1.num_batches_tracked")
    expected = {key: (student if key in own else average)[key] for key in weights}
    assert same(read_checkpoint(tmp_path / "net.pth")[0], expected)
    assert same(read_checkpoint(tmp_path / "net.pth", "params_ema")[0], expected)
    torch.save({"params": student, "params_ema": {**average, "1.num_batches_tracked": torch.tensor(7)}}, tmp_path / "net.pth")
    assert (read_checkpoint(tmp_path / "net.pth")[0]["1.running_mean"] == average["1.running_mean"]).all()


def test_a_plain_state_dict(tmp_path, weights):
    torch.save(weights, tmp_path / "net.pt")
    assert same(read_checkpoint(tmp_path / "net.pt")[0], weights)


def test_the_prefix_of_data_parallel_is_removed(tmp_path, weights):
    torch.save({"params": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "net.pth")
    assert same(read_checkpoint(tmp_path / "net.pth")[0], weights)


@pytest.mark.parametrize("front", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."])
def test_what_wrappers_put_into_names_is_removed(tmp_path, weights, front):
    named = {f"{front}{key.replace('.', '._orig_mod.')}": value for key, value in weights.items()}  # a part compiled by itself
    torch.save({"params": named}, tmp_path / "net.pth")
    assert same(read_checkpoint(tmp_path / "net.pth")[0], weights)
    save_file(named, tmp_path / "net.safetensors")
    assert same(read_checkpoint(tmp_path / "net.safetensors")[0], weights)


def test_names_that_are_wrapped_in_the_network_itself_fit_it(weights):
    net = nn.ModuleDict({"module": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))})
    load_strictly(net, {f"module.{key}": value for key, value in doubled(weights).items()}, "a.pth")
    assert same(net["module"].state_dict(), doubled(weights))
    load_strictly(net, weights, "a.pth")
    assert same(net["module"].state_dict(), weights)


def test_names_that_wrappers_alone_tell_apart_stay_as_they_are(tmp_path):
    both = {"module.a": torch.zeros(1), "a": torch.ones(1)}
    torch.save(both, tmp_path / "net.pth")
    assert same(read_checkpoint(tmp_path / "net.pth")[0], both)


OTHERS = {"loss.vgg.0.weight": torch.zeros(2), "loss.0.weight": torch.zeros(1), "step": torch.zeros(())}


@pytest.mark.parametrize("front", ["model.", "a.b.c.", "module.net._orig_mod."])
def test_a_network_within_a_larger_one_is_found_by_its_names(tmp_path, weights, front):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    torch.save(
        {"state_dict": {**OTHERS, **{f"{front}{key}": value for key, value in doubled(weights).items()}}}, tmp_path / "a.ckpt"
    )
    load_strictly(net, read_checkpoint(tmp_path / "a.ckpt")[0], "a.ckpt")
    assert same(net.state_dict(), doubled(weights))


def test_of_several_networks_in_a_file_the_prefix_chooses(tmp_path, weights):
    net, path = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), tmp_path / "a.ckpt"
    both = {f"model.{key}": value for key, value in weights.items()} | {f"ema.{key}": doubled(weights)[key] for key in weights}
    torch.save({"state_dict": both | OTHERS}, path)
    with pytest.raises(ValueError, match=r"stand behind several prefixes; name one of them: `prefix: model\.` \(model\., ema\.\)"):
        load_strictly(net, read_checkpoint(path)[0], "a.ckpt")
    for prefix in ("ema", "ema."):
        assert same(read_checkpoint(path, prefix=prefix)[0], doubled(weights))
    with pytest.raises(ValueError, match=r"a\.ckpt: no name begins with prefix 'emma'; they begin with model\., ema\., loss\."):
        read_checkpoint(path, prefix="emma")


def test_a_part_that_is_more_than_the_network_does_not_fit_it(weights):
    more = {f"model.{key}": value for key, value in weights.items()} | {"model.head.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"1 unexpected \(head.weight\)"):
        load_strictly(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), more, "a.pth")


ARGUMENTS = {
    "namespace": argparse.Namespace(lr=1e-4, path=Path("a"), shape=(1, 2)),
    "scalars": {"psnr": np.float64(31.5), "step": np.int64(3), "best": np.bool_(True)},
    "array": np.arange(3.0),
    "types": [np.dtype("float32"), torch.float16, torch.device("cpu"), torch.Size([1]), frozenset([1]), slice(1)],
    "time": datetime.datetime(2024, 1, 1),
    "counts": collections.defaultdict(list, {"a": [1]}),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ARGUMENTS)
@pytest.mark.parametrize("archive", [True, False], ids=["zip", "before 1.6"])
def test_plain_arguments_beside_weights_are_read_over(tmp_path, weights, kind, archive):
    path = tmp_path / "net.pth"
    torch.save({"args": ARGUMENTS[kind], "state_dict": weights}, path, _use_new_zipfile_serialization=archive)
    assert same(read_checkpoint(path)[0], weights)


def test_half_precision_comes_back_as_float32_and_whole_numbers_as_they_are(tmp_path, weights):
    torch.save({key: v.bfloat16() if v.is_floating_point() else v for key, v in weights.items()}, tmp_path / "net.pth")
    read, _ = read_checkpoint(tmp_path / "net.pth")
    assert read["0.weight"].dtype == torch.float32 and read["1.num_batches_tracked"].dtype == torch.int64
    torch.testing.assert_close(read["0.weight"], weights["0.weight"], rtol=2**-8, atol=0)


def test_safetensors_with_the_network_in_its_metadata(tmp_path, weights):
    network = {"type": "Restormer", "dim": 4}
    save_file(weights, tmp_path / "net.safetensors", metadata={"network": json.dumps(network)})
    read, described = read_checkpoint(tmp_path / "net.safetensors")
    assert same(read, weights) and described == network


def test_safetensors_without_metadata(tmp_path, weights):
    save_file(weights, tmp_path / "net.safetensors")
    assert read_checkpoint(tmp_path / "net.safetensors")[1] is None


# ------------------------------------------------------------------------------------------------ finding and loading


def test_a_file_is_found_also_under_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "net.pth").touch()
    assert find_checkpoint(str(tmp_path / "net.pth")) == tmp_path / "net.pth"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert find_checkpoint("~/net.pth") == tmp_path / "net.pth"


def test_a_bundled_name_is_found_and_an_unknown_one_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "BUNDLED", tmp_path)
    with pytest.raises(FileNotFoundError, match="'restormer' is no file and no bundled checkpoint .bundled: none"):
        find_checkpoint("restormer")
    (tmp_path / "restormer_derain.safetensors").touch()
    (tmp_path / "vgg.safetensors").touch()
    assert find_checkpoint("restormer_derain") == tmp_path / "restormer_derain.safetensors"
    with pytest.raises(FileNotFoundError, match=r"bundled: restormer_derain, vgg; nearest: restormer_derain\)"):
        find_checkpoint("restormer_deran")
    with pytest.raises(FileNotFoundError, match="no file"):
        find_checkpoint(str(tmp_path))  # a folder


def test_what_is_bundled_can_be_read_and_says_its_network():
    for path in checkpoint.BUNDLED.glob("*.safetensors"):
        weights, network = read_checkpoint(path)
        assert weights and all(torch.isfinite(value).all() for value in weights.values())
        assert network and "type" in network
        assert path.with_suffix(".md").is_file()


def test_loading_copies_every_tensor(weights):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    load_strictly(net, doubled(weights), "file")
    assert same(net.state_dict(), doubled(weights))


def test_what_does_not_fit_is_counted_and_the_first_is_named(weights):
    net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Conv2d(4, 4, 1))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    del weights["1.bias"], weights["0.bias"]
    with pytest.raises(ValueError) as error:
        load_strictly(net, weights, "a.pth")
    text = str(error.value)
    assert "checkpoint a.pth does not fit Sequential" in text
    assert "2 missing (0.bias, 1.bias)" in text
    assert "3 unexpected (1.running_mean, 1.running_var, 1.num_batches_tracked)" in text
    assert "2 of another shape (0.weight: network (4, 3, 5, 5), file (4, 3, 3, 3), 1.weight: " in text
    assert same(net.state_dict(), before)  # not half loaded


def test_only_what_is_wrong_is_said(weights):
    del weights["0.weight"]
    with pytest.raises(ValueError) as error:
        load_strictly(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), weights, "a.pth")
    assert "1 missing (0.weight)." in str(error.value)
    assert "unexpected" not in str(error.value) and "shape" not in str(error.value)


def test_a_few_names_are_said_and_the_rest_is_counted(weights):
    with pytest.raises(ValueError, match=r"7 unexpected \(0\.weight, 0\.bias, 1\.weight, \.\.\.\)"):
        load_strictly(nn.Identity(), weights, "a.pth")


@pytest.mark.parametrize(
    ("change", "agree"),
    [
        (lambda weights: {key: value[:1] if value.dim() else value for key, value in weights.items()}, "All names agree"),
        (lambda weights: {key: weights[key] for key in list(weights)[:3]}, "Some names agree"),
        (lambda weights: {"a": weights["0.weight"]}, "No name agrees"),
    ],
    ids=["shapes", "some", "none"],
)
def test_what_does_not_fit_says_whether_names_agree_and_guesses_nothing(weights, change, agree):
    with pytest.raises(ValueError, match=rf"\. {agree}$"):
        load_strictly(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), change(weights), "a.pth")


def test_what_does_not_fit_names_the_sets_that_the_file_holds_if_there_are_several(tmp_path, weights):
    path, net = tmp_path / "net.pth", nn.Conv2d(3, 4, 5)
    torch.save({"params": weights, "generator": net.state_dict(), "iter": 3}, path)
    with pytest.raises(ValueError, match="No name agrees; the file holds params, generator, of which `param_key` names one$"):
        load_strictly(net, read_checkpoint(path)[0], str(path))
    load_strictly(net, read_checkpoint(path, "generator")[0], str(path))


@pytest.mark.parametrize("change", [lambda x: x.to_sparse(), lambda x: x.to("meta")], ids=["sparse", "meta"])
def test_values_that_cannot_be_copied_name_the_file(weights, change):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="checkpoint a.pth does not fit Sequential: .*0.weight"):
        load_strictly(net, {**weights, "0.weight": change(weights["0.weight"])}, "a.pth")
