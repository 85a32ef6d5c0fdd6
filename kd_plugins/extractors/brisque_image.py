"""BRISQUE of images, as published: the 36 features, and their score under a support vector model.

Mittal, Moorthy, Bovik, "No-reference image quality assessment in the spatial domain", TIP 2012. Checked against
OpenCV's QualityBRISQUE (docs/extractors.md).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from os import path as osp
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_plugins.extractors.gray_images import each_image, mscn_image, to_gray
from kd_plugins.home import expand

MODEL_ENV = "KD_BRISQUE_MODEL"
_MODEL_FILE = "brisque_model_live.yml"
_ORIGIN = (
    f"{_MODEL_FILE} and brisque_range_live.yml lie in opencv_contrib (Apache-2.0), folder modules/quality/samples; "
    f"download both into one folder and name it in the argument or in the environment variable {MODEL_ENV}"
)


@lru_cache(maxsize=8)
def _shape_table(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Shapes 0.2, 0.201 .. 9.999 of a generalised Gaussian, and their moment ratio (rising)."""
    shape = torch.arange(200, 10000, dtype=torch.float64) / 1000
    ratio = torch.exp(2 * torch.lgamma(2 / shape) - torch.lgamma(1 / shape) - torch.lgamma(3 / shape))
    return shape.to(device=device, dtype=dtype), ratio.to(device=device, dtype=dtype)


def aggd_sums(lines: Tensor, shifts: tuple[int, ...]) -> Tensor:
    """What the fit of a map and of its products with neighbours needs.

    Size, square and sign of a product are those of its factors, multiplied: each sum is one scalar product of the map with
    itself, shifted, and no product is stored.

    Args:
        lines: Maps (N, L), with zeros where a neighbour would lie outside.
        shifts: Distances in memory to the neighbours.

    Returns:
        (N, 1 + len(shifts), 5): sums of |p|, p², p |p|, sign(p) and of the values that are not 0.
    """
    lines = lines.squeeze(0)  # the scalar product of two vectors is several times faster than that of two batches
    size, sign = lines.abs(), lines.detach().sign()
    sums = []
    for values in (size, lines.square(), lines * size, sign, sign.abs()):
        products = [torch.linalg.vecdot(values[..., :-shift], values[..., shift:]) for shift in shifts]
        sums.append(torch.stack([values.sum(-1), *products], dim=-1))
    return torch.stack(sums, dim=-1).view(-1, 1 + len(shifts), 5)


def fit_aggd(sums: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit asymmetric generalised Gaussians by moments, the shape by search in the published table.

    The shape's gradient is that of the exact solution (implicit function), not of the table, which has none.

    Args:
        sums: (..., 5), see :func:`aggd_sums`.
        count: Values summed, with the zeros; (...) or what broadcasts to it.

    Returns:
        Shape, left variance and right variance, each (...), float64.
    """
    absolute, square, signed, balance, nonzero = sums.double().unbind(-1)
    tiny = 1e-12
    left = (square - signed).clamp_min(0) / (nonzero - balance).clamp_min(2)
    right = (square + signed).clamp_min(0) / (nonzero + balance).clamp_min(2)
    gamma = ((left + tiny) / (right + tiny)).sqrt()
    ratio = (absolute / count).square() / (square / count + tiny)
    ratio = ratio * (gamma.pow(3) + 1) * (gamma + 1) / (gamma.square() + 1).square()

    shapes, table = _shape_table(torch.float64, ratio.device)
    with torch.no_grad():
        upper = torch.searchsorted(table, ratio.contiguous()).clamp(1, len(table) - 1)
        nearest = torch.where(ratio - table[upper - 1] < table[upper] - ratio, upper - 1, upper)
        slope = (table[upper] - table[upper - 1]) / 1e-3
        inside = (ratio > table[0]) & (ratio < table[-1])
    shape = shapes[nearest] + torch.where(inside, (ratio - ratio.detach()) / slope, 0)
    return shape, left, right


def _sums(gray: Tensor) -> Tensor:
    """(N, 1, H, W) gray in 0..255 -> (N, 2, 5, 5): two scales, MSCN and its products H, V, D1, D2."""
    sums = []
    for scale in (1, 2):
        if scale == 2:
            # OpenCV's cubic resize has no anti-aliasing and the same kernel (a = -0.75).
            size = (gray.shape[-2] // 2, gray.shape[-1] // 2)
            gray = F.interpolate(gray, size, mode="bicubic", align_corners=False, antialias=False)
        maps = mscn_image(gray)
        row = maps.shape[-1]
        sums.append(aggd_sums(maps.flatten(1), (1, row, row + 1, row - 1)))
    return torch.stack(sums, dim=1)


def brisque_features(x: Tensor) -> Tensor:
    """The 36 features of BRISQUE, in OpenCV's order.

    Per scale (full and half size): shape and variance of MSCN; for the products H, V, D1 and D2 shape, mean, left and
    right variance. Differentiable; rounding to 8-bit gray passes the gradient straight through, and the gradient of a
    shape is that of the exact moment equation. A constant image has no statistics: it gets the table's first shape
    and zeros, where OpenCV gives NaN.

    Args:
        x: Images (N, 1 or 3, H, W), RGB, in [0, 1], at least 4 pixels high and wide; any floating dtype, also under
            autocast.

    Returns:
        (N, 36), float32 (float64 for float64); NaN among them for an image with values that are not finite.

    Raises:
        ValueError: x is of another shape or type, or smaller.
    """
    if x.dim() == 4 and x.numel() and min(x.shape[-2:]) < 4:
        raise ValueError(f"brisque_features: images must be at least 4 x 4, got {x.shape[-2]} x {x.shape[-1]}.")
    with torch.autocast(x.device.type, enabled=False):
        sums = each_image(lambda image: _sums(to_gray("brisque_features", image)), x)
        count = [[x.shape[-2] * x.shape[-1]], [(x.shape[-2] // 2) * (x.shape[-1] // 2)]]
        shape, left, right = fit_aggd(sums, torch.tensor(count, device=x.device))
        log = [torch.lgamma(k / shape) for k in (1, 2, 3)]
        mean = ((right + 1e-12).sqrt() - (left + 1e-12).sqrt()) * torch.exp(log[1] - log[0] / 2 - log[2] / 2)
        pairs = torch.stack((shape, mean, left, right), dim=-1)[:, :, 1:].flatten(2)
        own = torch.stack((shape, (left + right) / 2), dim=-1)[:, :, 0]
        return torch.cat((own, pairs), dim=-1).flatten(1).to(sums.dtype)


@dataclass(frozen=True)
class BrisqueModel:
    """A support vector regression with a radial kernel: exp(-gamma |x - v|²).

    Attributes:
        vectors: (V, 36), in the scaled units of the features.
        weights: (V,).
        rho: Taken off the sum.
        gamma: Of the kernel.
        lower: (36,), the feature values that are scaled to -1.
        upper: (36,), to 1.
    """

    vectors: Tensor
    weights: Tensor
    rho: float
    gamma: float
    lower: Tensor
    upper: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Score of features (N, 36): (N,), clipped to 0..100 as OpenCV does."""
        values = features.double()
        vectors, weights, lower, upper = (t.to(values.device) for t in (self.vectors, self.weights, self.lower, self.upper))
        scaled = (values - lower) / (upper - lower) * 2 - 1
        distance = (scaled.unsqueeze(1) - vectors).square().sum(-1)
        score = torch.exp(-self.gamma * distance).matmul(weights) - self.rho
        return score.clamp(0, 100).to(features.dtype)


def find_brisque_model(path: str | os.PathLike[str] | None = None) -> Path:
    """Where the model file is: the argument, then the environment variable, then where OpenCV installs it.

    Args:
        path: A model file, or a folder that holds ``brisque_model_live.yml``.

    Raises:
        FileNotFoundError: It is in none of these places; the message says where it can be had.
    """
    for origin, value in (("argument 'model'", path), (f"environment variable {MODEL_ENV}", os.environ.get(MODEL_ENV))):
        if not value:
            continue
        found = expand(value)
        found = found / _MODEL_FILE if osp.isdir(found) else found
        if not osp.isfile(found):
            raise FileNotFoundError(f"BRISQUE: {origin} names {str(value)!r}, but {found} is no file; {_ORIGIN}.")
        return found
    import cv2

    places = [Path(cv2.__file__).parent / "data", Path(cv2.__file__).parent / "quality"]
    places += [Path(p) / "share" / v / "quality" for p in ("/usr", "/usr/local") for v in ("opencv4", "opencv5")]
    for place in places:
        if (place / _MODEL_FILE).is_file():
            return place / _MODEL_FILE
    raise FileNotFoundError(f"BRISQUE: no model file was given or found; {_ORIGIN}.")


def load_brisque_model(
    path: str | os.PathLike[str] | None = None, range_path: str | os.PathLike[str] | None = None
) -> BrisqueModel:
    """Read a model that OpenCV's BRISQUE trainer saved.

    Args:
        path: Model file or its folder; None: see :func:`find_brisque_model`.
        range_path: File of the feature ranges; None: beside the model, ``model`` in its name replaced by ``range``.

    Returns:
        The model, kept for later calls.

    Raises:
        FileNotFoundError: One of the two files is missing.
        ValueError: A file is not what it should be.
    """
    model = find_brisque_model(path)
    ranges = expand(range_path) if range_path else model.with_name(model.name.replace("model", "range"))
    if ranges == model or not osp.isfile(ranges):
        raise FileNotFoundError(f"BRISQUE: the model {model} needs its range file, and {ranges} is none; {_ORIGIN}.")
    return _load(str(model), str(ranges))


@lru_cache(maxsize=4)
def _load(model: str, ranges: str) -> BrisqueModel:
    import cv2

    def numbers(node) -> list[float]:
        return [node.at(i).real() for i in range(node.size())]

    # A node is only valid as long as its file is open.
    model_file = cv2.FileStorage(model, cv2.FILE_STORAGE_READ)
    range_file = cv2.FileStorage(ranges, cv2.FILE_STORAGE_READ)
    svm = model_file.getNode("opencv_ml_svm")
    limits = range_file.getNode("range").mat()
    kernel = svm.getNode("kernel")
    if svm.empty() or svm.getNode("svmType").string() != "EPS_SVR" or kernel.getNode("type").string() != "RBF":
        raise ValueError(f"BRISQUE: {model} holds no OpenCV support vector regression with a radial kernel.")
    if limits is None or limits.shape != (2, 36):
        raise ValueError(f"BRISQUE: {ranges} holds no 2 x 36 matrix called range.")
    decision = svm.getNode("decision_functions").at(0)
    nodes = svm.getNode("support_vectors")
    vectors = torch.tensor([numbers(nodes.at(i)) for i in range(nodes.size())], dtype=torch.float64)
    if vectors.dim() != 2 or vectors.shape[1] != 36:
        raise ValueError(f"BRISQUE: {model} has support vectors of shape {tuple(vectors.shape)}, expected (V, 36).")
    index = decision.getNode("index")
    if not index.empty():
        vectors = vectors[torch.tensor([int(i) for i in numbers(index)])]
    lower, upper = torch.from_numpy(limits).double()
    return BrisqueModel(
        vectors,
        torch.tensor(numbers(decision.getNode("alpha")), dtype=torch.float64),
        decision.getNode("rho").real(),
        kernel.getNode("gamma").real(),
        lower,
        upper,
    )


def brisque_score(x: Tensor, model: BrisqueModel | str | os.PathLike[str] | None = None) -> Tensor:
    """BRISQUE score, 0 (best) to 100.

    Args:
        x: Images, see :func:`brisque_features`.
        model: A model, or where its file is; None: see :func:`find_brisque_model`.

    Returns:
        (N,). Differentiable inside 0..100.

    Raises:
        ValueError: See :func:`brisque_features`.
        FileNotFoundError: The model cannot be found.
    """
    if not isinstance(model, BrisqueModel):
        model = load_brisque_model(model)
    return model(brisque_features(x))
