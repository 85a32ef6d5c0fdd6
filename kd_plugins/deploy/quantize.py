"""An ONNX file in int8: quantised by onnxruntime, its loss measured, and the layers that cost most left in float."""

from __future__ import annotations

import copy
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kd_plugins.deploy.calibration import Sample, Samples
from kd_plugins.deploy.onnx_network import INSTALL, OnnxNetwork
from kd_plugins.deploy.parity import psnr
from kd_plugins.metrics.latency import Latency, take_turns

MAX_LOSS = 0.1
"""In dB, of an int8 export."""
ASSUMED_PSNR = 35.0
"""In dB, of a network against a truth that is not known."""
_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MERGED = ("Relu", "Clip")  # become a bound of the integers of what is before them
_RANKING, _RANKING_SIDE, _RANKING_SAMPLES = 60.0, 96, 3  # seconds, pixels, images
_CHOICE_SIDE, _CHOICE_SAMPLES = 160, 6
_LATENCY_SIDE = 256
_LEAST_MSE = 1e-10  # 100 dB: black images are restored without any error


class Loss(NamedTuple):
    """What a network in int8 loses.

    Attributes:
        psnr: of its images against those in float, in dB.
        lost: of the PSNR against the truth, in dB; where that is not known, what a network of `ASSUMED_PSNR` would lose.
    """

    psnr: float
    lost: float


class Quantized(NamedTuple):
    """An ONNX file in int8.

    Attributes:
        loss: on the images that were held out.
        nodes: layers in int8.
        in_float: layers that are left in float.
        float_latency: of the file that it was made of, at `size`.
        latency: its own, measured in turns with the other.
        size: height and width of the image that both were timed at.
    """

    loss: Loss
    nodes: int
    in_float: list[str]
    float_latency: Latency
    latency: Latency
    size: tuple[int, int]


def quantize(plain: Path, path: Path, samples: Samples, max_loss: float = MAX_LOSS, say: Callable[[str], Any] = print) -> Quantized:
    """Write an ONNX file in int8: 8-bit weights, by channels, and 8-bit activations of convolutions and matrix products.

    If the loss is larger than it may be, layers are quantised one by one to see which cost most, and the fewest of those that do
    stay in float with which the loss is small enough. That number is chosen on images of the calibration; on those that are held
    out the loss is only measured, and further layers stay in float while it is too large.

    Args:
        plain: the file in single precision, as `export_model` writes it.
        path: where to.
        samples: see `read_samples`.
        max_loss: in dB, see `Loss.lost`.
        say: called with a sentence on what takes long.

    Raises:
        ValueError: onnxruntime is not installed; nothing to quantise; the loss is too large with any layer in int8.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        trials = _Trials(plain, samples.calibration, Path(folder))
        measure = partial(_measure, trials, _with_answers(trials.plain, samples.held_out))
        count, nodes = len(trials.nodes), trials.nodes
        loss = measure(nodes)
        if loss.lost > max_loss:
            say(f"All {count} layers in int8 lose {loss.lost:.3f} dB: looking for those that lose most")
            chosen = [sample.crop(_CHOICE_SIDE) for sample in samples.calibration[:_CHOICE_SAMPLES]]
            choose = partial(_measure, trials, _with_answers(trials.plain, chosen))
            ranked = _rank(trials, samples.calibration)
            fewest = _fewest(lambda left: choose(_without(trials.nodes, ranked[:left])).lost <= max_loss, count)
            tried = [(loss.lost, count)]
            for left in (*range(fewest, count - 1, math.ceil(count / 20)), count - 1):
                nodes = _without(trials.nodes, ranked[:left])
                loss = measure(nodes)
                if loss.lost <= max_loss:
                    break
                tried.append((loss.lost, len(nodes)))
            else:
                least, held = min(tried)
                raise ValueError(
                    f"--max-loss {max_loss:g}: {held} of {count} layers in int8 lose {least:.3f} dB, the least of what was tried; "
                    f"expected --max-loss {math.ceil(least * 1000) / 1000:g} or more, or no --int8"
                )
        path.write_bytes(trials.write(nodes).read_bytes())
        x = samples.held_out[0].crop(_LATENCY_SIDE).x
        runs = [trials.plain, OnnxNetwork(path, x.device)]
        float_latency, latency = take_turns([partial(run, x) for run in runs])
        return Quantized(loss, len(nodes), _without(trials.nodes, nodes), float_latency, latency, (x.shape[-2], x.shape[-1]))


def describe(found: Quantized, samples: Samples, known: bool, sizes: tuple[int, int]) -> str:
    """What an int8 file loses and gains, in lines.

    Args:
        found: what `quantize` returned.
        samples: what it was given.
        known: whether the truth is.
        sizes: bytes of its file, and of that in float.
    """
    loss, count, of = found.loss, len(samples.held_out), found.nodes + len(found.in_float)
    lost = (
        f"{loss.lost:.3f} dB lost against the truth" if known else f"a network of {ASSUMED_PSNR:g} dB would lose {loss.lost:.3f} dB"
    )
    ratio = found.latency.median / found.float_latency.median
    lines = [
        f"On {count} held-out image{'s' * (count > 1)} ({len(samples.calibration)} for calibration): {lost}; "
        f"PSNR to float {loss.psnr:.1f} dB" + ("" if known else f" ({MAX_LOSS:g} dB would be {least_psnr(MAX_LOSS):.1f} dB)"),
        f"{found.nodes} of {of} layers ({', '.join(_HEAVY)}) in int8, {len(found.in_float)} in float",
        f"{sizes[0] / 1e6:.2f} MB, in float {sizes[1] / 1e6:.2f} MB",
        f"At {found.size[0]}x{found.size[1]}, in turns: {found.latency}, in float {found.float_latency}: {ratio:.2f} of its time"
        + (", slower than float on this machine" if ratio > 1 else ""),
    ]
    return "\n".join(lines)


class _Trials:
    """Writes one file in int8 after another, with these layers or those.

    Args:
        plain: the file in single precision.
        samples: that ranges of values are taken from.
        folder: for what is written.

    Attributes:
        plain: the network in single precision.
        nodes: names of the layers that can be in int8.
    """

    def __init__(self, plain: Path, samples: Sequence[Sample], folder: Path) -> None:
        try:
            import onnx
            from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
            from onnxruntime.quantization.calibrate import create_calibrator
        except ImportError as error:
            raise ValueError(f"--int8: {error.name} is not installed: {INSTALL}") from error

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self._left = iter(samples)

            def get_next(self) -> Any:
                sample = next(self._left, None)
                return None if sample is None else {name: sample.x.numpy()}

        self._path = folder / "int8.onnx"
        self._model = onnx.shape_inference.infer_shapes(onnx.load(plain))
        self.plain = OnnxNetwork(plain, torch.device("cpu"))
        name = self._model.graph.input[0].name
        self.nodes = [node.name for node in self._model.graph.node if node.op_type in _HEAVY]
        self._merged = [node.name for node in self._model.graph.node if node.op_type in _MERGED]
        if not self.nodes:
            raise ValueError(f"--int8: none of {', '.join(_HEAVY)} in {plain.name}, expected something to quantise")
        place = str(folder / "observed.onnx")
        observer = create_calibrator(plain, [*_HEAVY, *_MERGED], place, CalibrationMethod.MinMax)
        observer.collect_data(Reader())
        self._ranges = observer.compute_data()

    def write(self, nodes: Sequence[str]) -> Path:
        """Write the file with these layers in int8; the next call replaces it."""
        import onnx
        from onnxruntime.quantization import QDQQuantizer, QuantType

        quantizer = QDQQuantizer(
            copy.deepcopy(self._model),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=[*nodes, *self._merged],
            nodes_to_exclude=[],
            op_types_to_quantize=[*_HEAVY, *_MERGED],
            extra_options={},
        )
        model = quantizer.quantize_model()
        for fact in model.metadata_props:
            if fact.key == "precision":
                fact.value = "int8"
        onnx.save(model, self._path)
        return self._path

    def load(self, nodes: Sequence[str]) -> OnnxNetwork:
        """The network with these layers in int8."""
        return OnnxNetwork(self.write(nodes), torch.device("cpu"))


class _Answered(NamedTuple):
    sample: Sample
    answer: Tensor


def _with_answers(run: Callable[[Tensor], Tensor], samples: Sequence[Sample]) -> list[_Answered]:
    return [_Answered(sample, run(sample.x).clamp(0, 1)) for sample in samples]


def _measure(trials: _Trials, answered: Sequence[_Answered], nodes: Sequence[str]) -> Loss:
    run = trials.load(nodes)
    errors, lost = [], []
    for (x, truth), answer in answered:
        seen = run(x).clamp(0, 1)
        errors.append(_mse(seen, answer))
        if truth is not None:
            lost.append(psnr(max(_mse(answer, truth), _LEAST_MSE)) - psnr(max(_mse(seen, truth), _LEAST_MSE)))
    mse = sum(errors) / len(errors)
    if not math.isfinite(mse):
        raise ValueError("--int8: makes numbers that are not finite, expected none")
    assumed = 10 * math.log10(1 + mse * 10 ** (ASSUMED_PSNR / 10))
    return Loss(psnr(mse), sum(lost) / len(lost) if lost else assumed)


def least_psnr(max_loss: float) -> float:
    """The PSNR against a network's images in float with which one of `ASSUMED_PSNR` loses so many dB: 51.3 dB for 0.1."""
    return ASSUMED_PSNR - 10 * math.log10(10 ** (max_loss / 10) - 1)


def _mse(a: Tensor, b: Tensor) -> float:
    return (a.double() - b.double()).square().mean().item()


def _rank(trials: _Trials, samples: Sequence[Sample]) -> list[str]:
    """The layers, those first that alone in int8 change most; by groups of neighbours, if each by itself would take too long."""
    answered = _with_answers(trials.plain, [sample.crop(_RANKING_SIDE) for sample in samples[:_RANKING_SAMPLES]])
    start = time.perf_counter()
    _measure(trials, answered, trials.nodes[:1])
    size = max(1, math.ceil(len(trials.nodes) * (time.perf_counter() - start) / _RANKING))
    groups = [trials.nodes[first : first + size] for first in range(0, len(trials.nodes), size)]
    ranked = sorted(groups, key=lambda group: _measure(trials, answered, group).psnr)
    return [node for group in ranked for node in group]


def _fewest(holds: Callable[[int], bool], count: int) -> int:
    """The smallest number from 1 to count - 1 that holds, if the larger ones do; else count - 1."""
    low, high = 1, count - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _without(nodes: Sequence[str], others: Sequence[str]) -> list[str]:
    dropped = set(others)
    return [node for node in nodes if node not in dropped]


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime logs, by the root logger, advice on networks that it was not asked about."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
