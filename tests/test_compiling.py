"""Parts of a step through torch.compile. Most of it is traced but not compiled: what the graphs hold is what is looked at."""

from functools import partial

import pytest
import torch
import torch._inductor.config as inductor_config
from torch import nn

from kd_plugins.compiling import Compilation, CompiledCall, compile_part, logged_compilation, read_compilation, uncompiled
from kd_plugins.features import FeatureTaps

CPU = torch.device("cpu")


@pytest.fixture
def traced(monkeypatch):
    """torch.compile traces, and runs what it has found as it is."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield
    torch._dynamo.reset()


class Overwriting(nn.Module):
    """A convolution whose output is overwritten."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        x = self.conv(x)
        x += 1
        return x


@pytest.mark.parametrize("gradient", [True, False], ids=["with gradient", "without"])
def test_taps_hear_a_compiled_network_and_names_stay(gradient):
    torch._dynamo.reset()
    net, x = Overwriting(), torch.rand(2, 3, 6, 6)
    taps, names = FeatureTaps(net, ["conv"]), list(net.state_dict())
    with taps:
        net(x)
    taps.collect()  # which shows that it is overwritten
    compile_part(net, "student", Compilation())
    for _ in range(2):
        with torch.set_grad_enabled(gradient), taps:
            image = net(x)
        feature = taps.collect()["conv"]
        torch.testing.assert_close(feature, net.conv(x))
        torch.testing.assert_close(image, feature + 1)
    if gradient:
        feature.sum().backward()
        torch.testing.assert_close(net.conv.bias.grad, torch.full((4,), 72.0))
    assert list(net.state_dict()) == names
    torch._dynamo.reset()


def test_a_break_of_the_graph_is_named_once_and_what_compiling_takes_is_said(traced, log):
    class Breaking(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    net = Breaking()
    compile_part(net, "teacher", Compilation())
    for iteration in (7, 8):
        with logged_compilation(iteration):
            assert torch.equal(net(torch.ones(3)), torch.full((3,), 2.0))
    said = log()
    assert said.count("compile: teacher: the graph breaks: ") == 1 and "a branch depends on values" in said
    assert "graphs in iteration 7, which took" in said and "iteration 8" not in said


def test_images_of_other_sizes_are_not_compiled(traced):
    net, passes = Overwriting(), []
    net.conv.register_forward_hook(lambda *seen: passes.append(torch.compiler.is_compiling()))
    compile_part(net, "student", Compilation())
    net(torch.rand(1, 3, 6, 6))
    with uncompiled():
        net(torch.rand(1, 3, 9, 7))
    assert passes[-1] is False


def test_without_a_compiler_there_is_one_sentence():
    expected = r"^compile: PyTorch cannot compile here: .*compiler.*; expected a C\+\+ compiler"
    with inductor_config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(ValueError, match=expected) as error:
        read_compilation(True, CPU)
    assert "\n" not in str(error.value)


def test_what_may_be_asked_for(traced):
    assert read_compilation(False, CPU) is None is read_compilation(None, CPU)
    assert read_compilation(True, CPU) == Compilation("default")
    assert read_compilation({"mode": "max-autotune"}, CPU) == Compilation("max-autotune")
    for wrong in ("fast", {"mode": "reduce-overhead"}):
        with pytest.raises(ValueError, match="compile: .*, expected true, false or {mode: default or max-autotune}"):
            read_compilation(wrong, CPU)


@pytest.mark.parametrize("method", ["SLKD", "SKD", "DCKD", "PSD"])
def test_a_step_of_each_method_is_traced_whole_and_has_the_same_numbers(method, traced, request, build, options, log):
    options = request.getfixturevalue("dckd_options") if method == "DCKD" else options
    options["model_type"] = f"{method}Model"
    if method == "PSD":
        options["features"] = None
    logs = []
    for compiled in (False, True):
        model = build({**options, "compile": compiled})
        for iteration in (1, 2):
            torch.manual_seed(iteration)
            model.optimize_parameters(iteration)
        logs.append(model.get_current_log())
        assert isinstance(model.net_g.forward, CompiledCall) == compiled
    assert logs[1] == pytest.approx(logs[0], rel=1e-5)
    assert "graphs in iteration 1" in log() and "the graph breaks" not in log()
    assert set(model.net_g.state_dict()) == set(model.net_g_ema.state_dict())
