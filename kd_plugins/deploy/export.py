"""Networks written for other programs: ONNX, TorchScript, torch.export, OpenVINO, and weights alone."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor

import kd_plugins
from kd_plugins.atomic_files import in_place_of
from kd_plugins.deploy.any_size import AnySize, find_padding, plain_functions
from kd_plugins.deploy.exported import form_of, import_openvino, load_exported
from kd_plugins.deploy.files import refuse_place
from kd_plugins.deploy.model import Model, load_model
from kd_plugins.deploy.onnx_network import INSTALL
from kd_plugins.deploy.parity import LEAST_PSNR, Difference, HalfAsOnGpu, compare, refuse_below
from kd_plugins.home import expand
from kd_plugins.teachers.network_description import described
from kd_plugins.training.checkpoint_files import write

INPUT, OUTPUT = "image", "restored"
"""The names of an exported network's one input and one output."""
_LEAST = 40  # of an example's sides: small ones would meet the limits of networks
_EXTRA_FILE = "kd_plugins.json"


def export_model(model: Model, path: Path, half: bool = False) -> None:
    """Write a model as the form that a file's name says.

    Every form but weights takes and returns single precision, images of any height and width: it pads and crops by itself.

    Args:
        model: with a network of PyTorch, on the CPU.
        path: .onnx, .pt (TorchScript), .pt2 (torch.export), .xml (OpenVINO, with a .bin beside it), .safetensors or .pth (weights
            that describe their network).
        half: compute in half precision; with OpenVINO and weights: keep weights in it.

    Raises:
        ValueError: a name that ends otherwise, a model that is an exported file itself, a library that is not installed, or a
            network that the form cannot hold; the message says why.
    """
    form = form_of(path)
    if model.net is None:
        raise ValueError(f"{model.name}: is an exported file already, expected weights")
    facts = describe_export(model, half)
    if form == "weights":
        _write_weights(model, path, half)
        return
    # OpenVINO rounds weights by itself, and chooses the precision that it computes in
    net = make_exportable(model, half and form != "openvino")
    if form == "openvino":
        import_openvino()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch about its own exporters
            _WRITERS[form](net, path, facts)
    except ImportError as error:
        raise ValueError(f"{form}: {error.name} is not installed: {INSTALL}") from error
    except Exception as error:  # each exporter raises types of its own
        reason = _reason(error)
        raise ValueError(f"{model.name}: {type(model.net).__name__} cannot be written as {form}: {reason}") from error


def export_checked(model: Model, path: Path, half: bool = False) -> list[Difference]:
    """Write a model, load what was written, and compare it with the model.

    Args:
        model: as `export_model` takes it.
        path: where to; see `aside`, which keeps what is refused from taking the place of anything.
        half: as `export_model` takes it.

    Returns:
        How far the two are apart at each of `SIZES`.

    Raises:
        ValueError: see `export_model`; or they are further apart than `LEAST_PSNR` allows.
    """
    export_model(model, path, half)
    form, precision = form_of(path), "fp16" if half else "fp32"
    # of a class that is named beside the weights, the block says it again
    written = load_model({**model.block, "checkpoint": str(path)}).run if form == "weights" else load_exported(path)
    assert model.net is not None
    try:
        with HalfAsOnGpu() if half and form in ("torchscript", "torch.export") else nullcontext():
            found = compare(written, model.net, model.channels)
        refuse_below(found, LEAST_PSNR[precision])
        if half and form == "onnx":  # onnxruntime computes in single precision on a CPU
            with HalfAsOnGpu():
                refuse_below(compare(make_exportable(model, half), model.net, model.channels), LEAST_PSNR[precision])
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}; it is not kept") from error
    return found


def make_exportable(model: Model, half: bool = False) -> AnySize:
    """A copy of a model's network that takes any size without a branch on it.

    Args:
        model: with a network of PyTorch, on the CPU.
        half: whether it computes in half precision.
    """
    assert model.net is not None
    padding = find_padding(model.net, model.channels)
    return AnySize(copy.deepcopy(model.net), padding, model.channels, model.scale, half)


def describe_export(model: Model, half: bool) -> dict[str, str]:
    """What an exported file says of itself."""
    return {
        "name": model.name,
        "scale": str(model.scale),
        "channels": str(model.channels),
        "order": "RGB" if model.channels == 3 else "gray",
        "range": "0-1",
        "precision": "fp16" if half else "fp32",
        "producer": f"kd_plugins {kd_plugins.__version__}",
    }


@contextmanager
def aside(path: Path, overwrite: bool) -> Iterator[Path]:
    """A place to write and check a file, and what lies beside it, before it takes its place, see `in_place_of`.

    Raises:
        ValueError: the file is there, and `overwrite` is not given; or its folder is not; or nothing can be written there.
    """
    path = expand(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no folder {str(path.parent)!r}")
    refuse_place(path, "-o")
    beside = [path.with_suffix(".bin")] if form_of(path) == "openvino" else []
    if there := [target for target in (path, *beside) if target.exists() and not overwrite]:
        raise ValueError(f"{there[0]}: is there already; expected another name, or --overwrite")
    with in_place_of(path, *(target.name for target in beside)) as part:
        yield part


def _example(net: AnySize) -> Tensor:
    """An image that is padded on both sides, and then no square: what holds for it alone is not taken for a rule."""
    multiple = net.padding.sizes.multiple
    count = -(-_LEAST // multiple)
    return torch.rand(1, net.channels, count * multiple + 1, (count + 1) * multiple + 1, generator=torch.Generator().manual_seed(0))


def _exported_program(net: AnySize, batches: bool) -> torch.export.ExportedProgram:
    x, dynamic = _example(net), torch.export.Dim.DYNAMIC
    sizes = {2: dynamic, 3: dynamic}
    if batches:
        try:
            return torch.export.export(net, (x.repeat(2, 1, 1, 1),), dynamic_shapes={"x": {0: dynamic, **sizes}}, strict=False)
        except Exception:  # networks that reckon with the number of images tie it down: one image at a time, then
            pass
    return torch.export.export(net, (x,), dynamic_shapes={"x": sizes}, strict=False)


def trace(net: AnySize) -> torch.jit.ScriptModule:
    """As TorchScript."""
    with plain_functions():
        return cast(torch.jit.ScriptModule, torch.jit.trace(net, (_example(net),), check_trace=False))


def _write_onnx(net: AnySize, path: Path, facts: dict[str, str]) -> None:
    import onnx_ir.passes.common

    program = _exported_program(net, batches=False)
    written = torch.onnx.export(program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
    assert written is not None
    model = written.model
    # a stack trace for each node: twice the size, and the names of folders here
    onnx_ir.passes.common.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.update(facts)
    for value, sides in ((model.graph.inputs[0], ("height", "width")), (model.graph.outputs[0], ("out_height", "out_width"))):
        value.shape = onnx_ir.Shape((1, net.channels, *sides))
    written.save(str(path), external_data=False)


def _write_torchscript(net: AnySize, path: Path, facts: dict[str, str]) -> None:
    torch.jit.save(trace(net), path, _extra_files={_EXTRA_FILE: json.dumps(facts)})


def _write_program(net: AnySize, path: Path, facts: dict[str, str]) -> None:
    torch.export.save(_exported_program(net, batches=True), path, extra_files={_EXTRA_FILE: json.dumps(facts)})


def _write_openvino(net: AnySize, path: Path, facts: dict[str, str]) -> None:
    openvino = import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # not openvino.convert_model: it reports to its maker over the network
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(trace(net))  # in a variable: the frontend does not keep it
    model = frontend.convert(frontend.load(decoder))
    model.reshape([-1, net.channels, -1, -1])
    model.inputs[0].get_tensor().set_names({INPUT})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    for key, value in facts.items():
        model.set_rt_info(value, ["kd_plugins", key])
    openvino.save_model(model, str(path), compress_to_fp16=facts["precision"] == "fp16")


_WRITERS: dict[str, Callable[[AnySize, Path, dict[str, str]], Any]] = {
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
    "torch.export": _write_program,
    "openvino": _write_openvino,
}


def _write_weights(model: Model, path: Path, half: bool) -> None:
    """As BasicSR and spandrel read them; they describe their network where its class is known here."""
    assert model.net is not None
    weights = {name: value.contiguous() for name, value in model.net.state_dict().items()}
    if half:
        weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    network = described(model.block)
    if path.suffix.lower() == ".safetensors":
        path.write_bytes(save(weights, {"network": json.dumps(network)} if network else None))
    else:
        write(str(path), {"params": weights}, network)


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line: exporters wrap it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
