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

from kd_plugins.features import nearest
from kd_plugins.teachers.programs import program_kind

BUNDLED = Path(__file__).parent.parent / "weights"
_AVERAGE = "params_ema"
_PARAM_KEYS = (_AVERAGE, "params", "state_dict", "model_state_dict", "model", "net")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What a batch norm knows of the images it was trained on."""
DESCRIPTION = "network.json"
_LONGEST_DESCRIPTION = 2**20
_NAMED = 3  # keys that a message names


def find_checkpoint(name: str) -> Path:
    """The file of a checkpoint.

    Args:
        name: a path, or the name of a bundled checkpoint (kd_plugins/weights/NAME.safetensors).

    Raises:
        FileNotFoundError: neither exists.
    """
    path = Path(name).expanduser()
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
        ValueError: it is a program.
        FileNotFoundError: no such file.
    """
    path = find_checkpoint(name)
    if kind := program_kind(path):
        raise ValueError(
            f"checkpoint: {path} is a program ({kind}), which runs when it is loaded; if you trust it: `program: {path}`, "
            "`trust: true`"
        )
    return path


def read_checkpoint(path: Path, param_key: str | None = None) -> tuple[dict[str, Tensor], Any]:
    """Read weights from .safetensors, or from .pth/.pt without running pickled code.

    Args:
        path: the file.
        param_key: which dict of a BasicSR checkpoint; by default params_ema, else params, else another usual name, else the
            file's own top level.

    Returns:
        The weights (a `module.` prefix is removed), in float32 where they are stored in half precision, and what the file says of
        its network, if it does (see `plain_network`): bundled teachers and saved students do.

    Raises:
        ValueError: the file cannot be read safely, has no such key, or a weight in it is not a number.
    """
    weights = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path, param_key)
    network = network_in(path)
    if broken := [key for key, value in weights.items() if torch.isnan(value).any()]:
        raise ValueError(f"checkpoint {path}: {len(broken)} of its weights are not numbers ({', '.join(broken[:_NAMED])})")
    return {key.removeprefix("module."): _single(value) for key, value in weights.items()}, network


def network_in(path: Path) -> Any:
    """What a file says of its network, whatever that is (see `plain_network`); None for nothing. No weight is read.

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
    """Add to what torch.save wrote what it is to say of its network; torch.load and what it returns stay as they are."""
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
    return value.float() if value.is_floating_point() else value


def _read_pickle(path: Path, param_key: str | None) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]  # some have no message
        raise ValueError(
            f"checkpoint {path}: cannot be read as plain weights ({reason}). A file that needs pickled code is "
            "refused: save its state_dict() alone, with torch.save or safetensors"
        ) from None
    keys = [param_key] if param_key else [key for key in _PARAM_KEYS if isinstance(content, Mapping) and key in content]
    if param_key and (not isinstance(content, Mapping) or param_key not in content):
        found = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"checkpoint {path}: no param_key {param_key!r}; it has {found}")
    weights = content[keys[0]] if keys else content
    named = isinstance(weights, Mapping) and all(isinstance(key, str) and isinstance(x, Tensor) for key, x in weights.items())
    if not named:
        raise ValueError(f"checkpoint {path}: expected a dict of tensors by name, or one under {', '.join(_PARAM_KEYS)}")
    return {**weights, **(_missed_statistics(content) if keys[:1] == [_AVERAGE] else {})}


def _missed_statistics(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The batch norms' statistics of `params`, where those of `params_ema` stayed behind: BasicSR averages parameters alone."""
    average, student = content[_AVERAGE], content.get("params")
    counters = [key for key in average if key.endswith("num_batches_tracked")]
    if not isinstance(student, Mapping) or not all(isinstance(student.get(key), Tensor) for key in average):
        return {}
    if all(torch.equal(average[key], student[key]) for key in counters):
        return {}
    get_root_logger().info(f"The batch norms' statistics of {_AVERAGE} stayed behind; those of params are taken.")
    return {key: student[key] for key in average if key.rpartition(".")[2] in STATISTICS}


def load_strictly(net: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights, or say how they differ from the network.

    Raises:
        ValueError: names or shapes differ; the message counts them, names a few, and says what likely happened.
    """
    own = net.state_dict()
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
        raise ValueError(
            f"checkpoint {source} does not fit {type(net).__name__}: {'; '.join(parts)}. {_likely(own, missing, unexpected)}"
        )
    net.load_state_dict(weights)


def _likely(own: Mapping[str, Tensor], missing: list[str], unexpected: list[str]) -> str:
    """What likely happened where weights do not fit."""
    if not missing and not unexpected:
        return "All names agree: likely other arguments (width, kernel size, scale)"
    if len(missing) < len(own):
        return "Some names agree: likely other arguments (depth, a switch), or another version of the architecture"
    prefix = unexpected[0].partition(".")[0] + "." if unexpected else ""
    if prefix and all(key.startswith(prefix) for key in unexpected) and any(key.removeprefix(prefix) in own for key in unexpected):
        return f"The file's names have {prefix!r} in front: likely part of a larger model; save that part's state_dict() alone"
    return "No name agrees: likely another architecture, or another `param_key`"
