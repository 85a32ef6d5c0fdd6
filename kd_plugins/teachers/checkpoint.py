"""Weights of a teacher: found, read without running code from the file, and loaded strictly."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from os import path as osp
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import get_root_logger
from safetensors import safe_open
from torch import Tensor, nn

from kd_plugins.extractors.safe_load import load_plain
from kd_plugins.home import expand
from kd_plugins.messages import nearest
from kd_plugins.teachers.program_files import program_kind
from kd_plugins.teachers.weight_names import listed, named_as, unwrapped, without_prefix

BUNDLED = Path(__file__).parent.parent / "weights"
_AVERAGE = "params_ema"
_PARAM_KEYS = (_AVERAGE, "params", "state_dict", "model_state_dict", "model", "net")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""The running statistics of a batch norm."""
DESCRIPTION = "network.json"
_GRAPHS = (".onnx", ".xml")
_LONGEST_DESCRIPTION = 2**20
_NAMED = 3  # keys that a message names


class BrokenWeights(ValueError):
    """Weights that are not numbers: a training that has gone wrong."""


def find_checkpoint(name: str) -> Path:
    """The file of a checkpoint.

    Args:
        name: a path, or the name of a bundled checkpoint (kd_plugins/weights/NAME.safetensors).

    Raises:
        FileNotFoundError: neither exists.
    """
    path = expand(name)
    if osp.isfile(path):
        return path
    bundled = {file.stem: file for file in BUNDLED.glob("*.safetensors") if not file.stem.startswith("tokenizer_")}
    if name in bundled:
        return bundled[name]
    raise FileNotFoundError(
        f"checkpoint: {name!r} is no file and no bundled checkpoint (bundled: {', '.join(sorted(bundled)) or 'none'}; "
        f"nearest: {nearest(name, bundled)})"
    )


def find_weights(name: str) -> Path:
    """The file of a checkpoint, see `find_checkpoint`.

    Raises:
        ValueError: it is a program, or another exported file.
        FileNotFoundError: no such file.
    """
    path = find_checkpoint(name)
    if path.suffix.lower() in _GRAPHS:
        raise ValueError(f"checkpoint: {path} is an exported file, which has no layers to learn from; expected weights")
    if kind := program_kind(path):
        raise ValueError(
            f"checkpoint: {path} is a program ({kind}), which runs when it is loaded; if you trust it: `program: {path}`, "
            "`trust: true`"
        )
    return path


def read_checkpoint(
    path: Path, param_key: str | None = None, prefix: str | None = None, first: str | None = None
) -> tuple[dict[str, Tensor], Any]:
    """Read weights from .safetensors, or from .pth/.pt without running pickled code.

    Args:
        path: the file.
        param_key: which dict of a BasicSR checkpoint; by default params_ema, else params, else another usual name, else the
            file's own top level.
        prefix: of the names that are meant, where the file holds more than the network.
        first: without `param_key`, the dict that is looked for first.

    Returns:
        The weights (what DataParallel and torch.compile put into names is removed), in float32 where they are stored in half
        precision, and what the file says of its network, if it does (see `plain_network`): bundled teachers and saved students do.

    Raises:
        ValueError: the file cannot be read safely, or has no such key or prefix.
        BrokenWeights: a weight in it is not a number.
    """
    weights = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path, param_key, first)
    network = network_in(path)
    try:
        weights = without_prefix(unwrapped(weights), prefix) if prefix else unwrapped(weights)
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}") from None
    if sparse := [key for key, value in weights.items() if value.layout != torch.strided]:
        raise ValueError(f"checkpoint {path}: {len(sparse)} of its weights are sparse tensors ({', '.join(sparse[:_NAMED])})")
    if broken := [key for key, value in weights.items() if torch.isnan(value).any()]:
        raise BrokenWeights(f"checkpoint {path}: {len(broken)} of its weights are not numbers ({', '.join(broken[:_NAMED])})")
    return {key: _single(value) for key, value in weights.items()}, network


def network_in(path: Path) -> Any:
    """The description of a network in a file, unchecked (see `plain_network`); None where there is none. No weight is read.

    It is the metadata `network` of a .safetensors file, and beside the weights in an archive that torch.save wrote.

    Raises:
        ValueError: the file cannot be read.
    """
    if path.suffix == ".safetensors":
        with _safetensors(path) as file:
            return json.loads((file.metadata() or {}).get("network", "null"))
    try:
        with zipfile.ZipFile(path) as archive:
            record = next((name for name in archive.namelist() if name.partition("/")[2] == DESCRIPTION), None)
            if record is None:
                return None
            with archive.open(record) as file:
                return json.loads(file.read(_LONGEST_DESCRIPTION))
    except zipfile.BadZipFile:  # torch.save wrote no archive before 1.6
        return None
    except Exception as error:  # whatever a damaged archive, or what is no JSON, raises
        raise ValueError(f"checkpoint {path}: what it says of its network cannot be read: {error}") from None


def describe(buffer: BytesIO, network: Any) -> None:
    """Add the description of a network to what torch.save wrote; torch.load returns the same as before."""
    with zipfile.ZipFile(buffer, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(zipfile.ZipInfo(f"{folder}/{DESCRIPTION}"), json.dumps(network))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with _safetensors(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except Exception as error:  # safetensors raises its own type
        raise ValueError(f"checkpoint {path}: cannot be read: {error}") from None


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() and value.element_size() < torch.float32.itemsize else value


def _read_pickle(path: Path, param_key: str | None, first: str | None) -> dict[str, Tensor]:
    content = _content(path)
    usual = [first, *_PARAM_KEYS] if first else _PARAM_KEYS
    keys = [param_key] if param_key else [key for key in usual if isinstance(content, Mapping) and key in content]
    if param_key and (not isinstance(content, Mapping) or param_key not in content):
        raise ValueError(f"checkpoint {path}: no param_key {param_key!r}; {_holds(content)}")
    weights = content[keys[0]] if keys else content
    if not _are_weights(weights):
        raise ValueError(
            f"checkpoint {path}: expected a dict of tensors by name, or one under {', '.join(_PARAM_KEYS)}; {_holds(content)}"
        )
    if first and first not in keys:
        get_root_logger().info(f"{path} has no {first}: its {keys[0] if keys else 'top level'} is read.")
    return {**weights, **(_missed_statistics(content) if keys[:1] == [_AVERAGE] else {})}


def _content(path: Path) -> Any:
    try:
        return load_plain(path, inert=True)
    except ValueError as error:
        raise ValueError(
            f"checkpoint {path}: cannot be read as plain weights ({error}). A file that needs pickled code is "
            "refused: save its state_dict() alone, with torch.save or safetensors"
        ) from None


def _are_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) and isinstance(x, Tensor) for key, x in value.items())


def _holds(content: Any) -> str:
    """Describe the top level of a file, for a message."""
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}"
    sets = [key for key, value in content.items() if _are_weights(value) and len(value)]
    return f"it has {listed(content)}" + (f"; of these `param_key` can name {listed(sets)}" if sets else "")


def _missed_statistics(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The batch norms' statistics of `params`, where those of `params_ema` are stale: BasicSR averages parameters alone."""
    average, student = content[_AVERAGE], content.get("params")
    counters = [key for key in average if key.endswith("num_batches_tracked")]
    if not isinstance(student, Mapping) or not all(isinstance(student.get(key), Tensor) for key in average):
        return {}
    if all(torch.equal(average[key], student[key]) for key in counters):
        return {}
    get_root_logger().info(f"The batch norms' statistics of {_AVERAGE} stayed behind; those of params are taken.")
    return {key: student[key] for key in average if key.rpartition(".")[2] in _STATISTICS}


def load_strictly(net: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights; where they do not fit, the error says how they differ.

    Raises:
        ValueError: names or shapes differ; the message counts them, names a few, and says what likely happened.
    """
    own = net.state_dict()
    try:
        weights = named_as(own, weights)
    except ValueError as error:
        raise ValueError(f"checkpoint {source}: {error}") from None
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    shapes = [
        f"{key}: network {tuple(own[key].shape)}, file {tuple(weights[key].shape)}"
        for key in own
        if key in weights and own[key].shape != weights[key].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{len(found)} {what} ({', '.join(found[:_NAMED])}{', ...' if len(found) > _NAMED else ''})"
            for what, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
            if found
        ]
        agree = "All" if not missing and not unexpected else "Some" if len(missing) < len(own) else "No"
        said = f"{agree} name{'s' * (agree != 'No')} agree{'s' * (agree == 'No')}{_further_sets(source)}"
        raise ValueError(f"checkpoint {source} does not fit {type(net).__name__}: {'; '.join(parts)}. {said}")
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:  # names and shapes agree, and a value is none of its kind: complex, or without numbers in it
        raise ValueError(f"checkpoint {source} does not fit {type(net).__name__}: {' '.join(str(error).split())[:300]}") from error


def _further_sets(source: str) -> str:
    """The sets of weights that a file holds, where there are several."""
    if not osp.isfile(source) or source.endswith(".safetensors"):
        return ""
    content = _content(Path(source))
    sets = [key for key, value in content.items() if _are_weights(value) and len(value)] if isinstance(content, Mapping) else []
    return f"; the file holds {listed(sets)}, of which `param_key` names one" if len(sets) > 1 else ""
