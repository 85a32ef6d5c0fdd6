"""A frozen VQ tokenizer as a feature space for losses, and the files that one is loaded from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import path as osp
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kd_plugins.arguments import checked
from kd_plugins.extractors.registry import EXTRACTOR_REGISTRY
from kd_plugins.extractors.safe_load import load_plain
from kd_plugins.extractors.vq_encoder import VQTokenizer, layout_of
from kd_plugins.home import expand

BUNDLED = Path(__file__).parent.parent / "weights" / "tokenizer_photos.safetensors"
_PARTS = ("encoder.", "quant_conv.", "quantize.embedding.weight")
_PUBLISHED_GROUPS = 32


def load_tokenizer(path: str | Path) -> VQTokenizer:
    """Load a tokenizer; nothing in the file is run as code.

    Args:
        path: A .safetensors of `save_tokenizer`, whose metadata holds the architecture; or any .safetensors, .ckpt or .pth with
            the published names, also a whole VQGAN as its training framework saved it (``vqgan_imagenet_f16_1024``): its decoder,
            losses and optimizer are left in the file, and the architecture is told from the shapes, with 32 groups.

    Returns:
        The tokenizer in float32, in eval mode, without gradient.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It cannot be read, or holds no such encoder, quant_conv and codebook, or they do not fit each other.
    """
    path = expand(path)
    if not osp.isfile(path):
        raise FileNotFoundError(f"tokenizer weights: {str(path)!r} is no file; expected .safetensors, .ckpt or .pth")
    weights, arguments = _read(path)
    # Copied: what is read may be a map of the file, which the tokenizer may outlive.
    weights = {key: value.to(torch.float32, copy=True) for key, value in weights.items() if key.startswith(_PARTS)}
    for part in _PARTS:
        if not any(key.startswith(part) for key in weights):
            raise ValueError(
                f"tokenizer weights {path}: no {part.rstrip('.')}; expected a VQGAN by its published names: "
                "encoder.*, quant_conv.*, quantize.embedding.weight"
            )
    try:
        # On the meta device: the random start of 30 million parameters would take longer than reading them.
        with torch.device("meta"):
            net = VQTokenizer(**(arguments or {**layout_of(weights), "groups": _PUBLISHED_GROUPS}))
        net.load_state_dict(weights, assign=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"tokenizer weights {path}: no tokenizer of this layout: {error}") from None
    except RuntimeError as error:
        problems = [line.strip() for line in str(error).splitlines()[1:]]
        raise ValueError(f"tokenizer weights {path}: {len(problems)} problems, first: {problems[0]}") from None
    return net.requires_grad_(False).eval()


def save_tokenizer(net: VQTokenizer, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Save a tokenizer as safetensors that describe their own architecture.

    Args:
        net: The tokenizer.
        path: The file to write, .safetensors.
        dtype: Of the stored weights.

    Raises:
        ValueError: Another suffix.
    """
    path = expand(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"tokenizer weights: {str(path)!r} is to be written, expected a name that ends in .safetensors")
    weights = {
        key: value.detach().to("cpu", dtype, memory_format=torch.contiguous_format) for key, value in net.state_dict().items()
    }
    save_file(weights, path, metadata={"network": json.dumps({"type": "VQTokenizer", **net.arguments})})


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors of a file by name, and the arguments of the network where the file has them."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                weights = {key: file.get_tensor(key) for key in file.keys() if key.startswith(_PARTS)}  # noqa: SIM118
                network = json.loads((file.metadata() or {}).get("network", "null"))
        except Exception as error:  # safetensors raises its own type
            raise ValueError(f"tokenizer weights {path}: cannot be read: {error}") from None
        if not isinstance(network, dict):
            return weights, None
        if network.pop("type", None) != "VQTokenizer":
            raise ValueError(f"tokenizer weights {path}: its metadata describes another network: expected type VQTokenizer")
        return weights, network
    try:
        content = load_plain(path, inert=True)
    except ValueError as error:
        raise ValueError(f"tokenizer weights {path}: cannot be read without running code: {error}") from None
    for key in ("state_dict", "params_ema", "params"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise ValueError(f"tokenizer weights {path}: holds {type(content).__name__}, expected a dict of tensors")
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}, None


@EXTRACTOR_REGISTRY.register()
@checked
class TokenizerExtractor(nn.Module):
    """The feature space of DCKD (arXiv 2412.08939): a frozen VQGAN encoder, and the codebook that its output is compared with.

    The levels are the output of the first residual block at each resolution, as in the authors' released code. The image may
    have any size from `stride` up; each halving rounds down, as the published padding does, so z has H // stride rows.

    Args:
        weights: A file (`load_tokenizer`); None for the small tokenizer of ours that is bundled.
        range: What the encoder is fed: ``symmetric`` maps [0, 1] to [-1, 1], on which VQGANs and ours were trained; ``unit``
            leaves [0, 1] as it is, which the released code of DCKD does.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another range, or weights that cannot be used.
    """

    compilable = ("forward", "encode")

    def __init__(self, weights: str | Path | None = None, range: Literal["symmetric", "unit"] = "symmetric") -> None:
        super().__init__()
        self.range = range
        # Convolutions pass the layout of their weights on to their outputs; on a CPU this one takes a quarter less time.
        self.net = load_tokenizer(BUNDLED if weights is None else weights).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def codebook(self) -> Tensor:
        """The codes, (K, D)."""
        return self.net.quantize.embedding.weight

    @property
    def stride(self) -> int:
        """Pixels of the image for one position of z, on a side."""
        return self.net.stride

    def train(self, mode: bool = True) -> TokenizerExtractor:
        """Stay in eval mode."""
        return super().train(False)

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return f"range={self.range}, codes={tuple(self.codebook.shape)}"

    def _input(self, image: Tensor) -> Tensor:
        if image.dim() != 4 or image.shape[1] not in (1, 3) or not image.is_floating_point() or min(image.shape[-2:]) < self.stride:
            raise ValueError(
                f"TokenizerExtractor: expected floating-point images (N, 1 or 3, H, W) with H and W from {self.stride} up, "
                f"got {image.dtype} {tuple(image.shape)}."
            )
        image = image.expand(-1, 3, -1, -1)  # gray: the same in all three
        return image * 2 - 1 if self.range == "symmetric" else image

    def forward(self, image: Tensor) -> list[Tensor]:
        """The levels alone; what only z needs is not computed.

        Args:
            image: (N, 3, H, W), or (N, 1, H, W) gray, in [0, 1].

        Returns:
            A feature for each level, shallow to deep: (N, C_l, H // 2**l, W // 2**l).

        Raises:
            ValueError: The image has another shape or type.
        """
        return self.net.encoder.levels(self._input(image))

    def encode(self, image: Tensor, first: int | None = None) -> tuple[list[Tensor], Tensor]:
        """The levels and z in one pass.

        Args:
            image: (N, 3, H, W), or (N, 1, H, W) gray, in [0, 1].
            first: how many images, from the first, to make z of; None for all.

        Returns:
            The levels as from `forward`, and z = quant_conv(encoder(image)), not quantised, (first, D, H // stride, W // stride).

        Raises:
            ValueError: The image has another shape or type.
        """
        return self.net(self._input(image), first)
