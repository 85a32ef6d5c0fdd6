"""What a teacher made of images, kept on disk: a second run, or a second student, pays no teacher for the same crops."""

from __future__ import annotations

import hashlib
import inspect
import json
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple

import torch
from basicsr.utils import get_root_logger
from safetensors.torch import load, save
from torch import Tensor, nn

from kd_plugins.archs.adapter import Adapter
from kd_plugins.arguments import Above, checked
from kd_plugins.home import expand
from kd_plugins.messages import show_bytes
from kd_plugins.teachers.network_keys import registered_keys

_ENTRY = struct.Struct("<16sQQII")  # key, place and length of the record, its CRC-32, that of the entry so far
_LOOK_AGAIN = 10.0  # seconds, for what other processes have added, and how much
_GB = 10**9
_TOO_LARGE = "values that float16 cannot hold are not kept; `dtype: float32` keeps them"
Outputs = tuple[Tensor, dict[str, Tensor]]
"""Images, and features by layer: what a teacher returns for a batch."""


class _Place(NamedTuple):
    file: Path
    start: int
    length: int
    crc: int


class Records:
    """Byte strings by key in a folder, which grow only, for many processes at a time.

    Each process writes a pair of files of its own: records, and an index of them whose entries follow the records. What a kill or a
    power cut left half-written is in no entry, or fails its checksum: it is never returned.

    Args:
        folder: where they are.
        bound: how many bytes the folder around it may hold, whoever writes there.
    """

    def __init__(self, folder: Path, bound: int) -> None:
        self.folder, self.bound, self.stopped = folder, bound, ""
        self._room = 0  # known once it has been looked at
        self._places: dict[bytes, _Place] = {}
        self._known: dict[Path, int] = {}  # how much of each index has been read
        self._open: dict[Path, BinaryIO] = {}
        self._mine: tuple[Path, BinaryIO, BinaryIO] | None = None
        self._looked = -_LOOK_AGAIN

    def get(self, key: bytes) -> bytes | None:
        """The record of a key of 16 bytes, None where there is no good one."""
        if key not in self._places and time.monotonic() - self._looked >= _LOOK_AGAIN:
            self._look()
        if (place := self._places.get(key)) is None:
            return None
        try:
            if place.file not in self._open:
                self._open[place.file] = place.file.open("rb")
            file = self._open[place.file]
            file.seek(place.start)
            record = file.read(place.length)
        except OSError:
            record = b""
        if len(record) == place.length and zlib.crc32(record) == place.crc:
            return record
        del self._places[key]
        return None

    def _look(self) -> None:
        for index in self.folder.glob("*.index"):
            start = self._known.get(index, 0)
            try:
                with index.open("rb") as file:
                    file.seek(start)
                    text = file.read()
            except OSError:
                continue
            whole = len(text) // _ENTRY.size * _ENTRY.size
            for entry in _ENTRY.iter_unpack(text[:whole]):
                if zlib.crc32(_ENTRY.pack(*entry[:4], 0)[:-4]) == entry[4]:
                    self._places.setdefault(entry[0], _Place(index.with_suffix(".data"), *entry[1:4]))
            self._known[index] = start + whole
        self._room, self._looked = self.bound - _bytes_in(self.folder.parent), time.monotonic()

    def add(self, key: bytes, record: bytes) -> None:
        """Keep a record; where there is no room, or the disk refuses, `stopped` says why from then on."""
        if self.stopped:
            return
        if len(record) + _ENTRY.size > self._room:
            self.stopped = "its bound is reached"
            return
        try:
            if self._mine is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                data = self.folder / f"{secrets.token_hex(8)}.data"
                self._mine = data, data.open("xb"), data.with_suffix(".index").open("xb")
            path, data, index = self._mine
            place = _Place(path, data.tell(), len(record), zlib.crc32(record))
            data.write(record)
            data.flush()  # before the entry that names it
            entry = _ENTRY.pack(key, *place[1:], 0)[:-4]
            index.write(entry + struct.pack("<I", zlib.crc32(entry)))
            index.flush()
        except OSError as error:
            self.stopped = f"{self.folder}: {error.strerror or error}"
            return
        self._places[key] = place
        self._room -= len(record) + _ENTRY.size


@checked
class TeacherCache:
    """What teachers made of images, kept in a folder.

    The key of an image is a digest of its pixels: crops, flips, views and degradations need no care. A teacher's records are in a
    sub-folder named by what they depend on (`identity_of`), so that another teacher, or other layers, have records of their own.

    Args:
        folder: where; several runs may use it at a time.
        gigabytes: how large the folder may get; then nothing is added.
        dtype: of what is kept. Where float16 cannot hold a value, the image is left out.

    Attributes:
        hits: how many images were found, of how many that were `asked` for.
    """

    def __init__(
        self, folder: str, gigabytes: Annotated[float, Above(0)] = 20.0, dtype: Literal["float16", "float32"] = "float16"
    ) -> None:
        self.folder, self.bound, self.dtype = expand(folder), int(gigabytes * _GB), getattr(torch, dtype)
        self.hits = self.asked = 0
        self._records: dict[str, Records] = {}
        self._said: set[str] = set()

    def __call__(self, restore: Callable[[Tensor], Outputs], identity: str, x: Tensor) -> Outputs:
        """What a teacher makes of a batch; it sees the images alone that are not kept yet.

        Args:
            restore: the teacher.
            identity: of the teacher.
            x: (N, C, H, W).

        Returns:
            As the teacher, in float32. What was not found is rounded to `dtype`, too: who finds it later gets the same bits.
        """
        records = self._of(f"{identity}-{torch.finfo(self.dtype).bits}")
        keys = [_key(image) for image in x.detach().cpu()]
        found = [records.get(key) for key in keys]
        parts: list[dict[str, Tensor]] = [{} if record is None else load(record) for record in found]
        missing = [index for index, record in enumerate(found) if record is None]
        if missing:
            image, features = restore(x[missing] if len(missing) < len(x) else x)
            for row, index in enumerate(missing):
                exact = {"": image[row], **{layer: value[row] for layer, value in features.items()}}
                kept = {name: value.to(self.dtype).contiguous().cpu() for name, value in exact.items()}
                if all(torch.isfinite(value).all() for value in kept.values()):
                    records.add(keys[index], save(kept))
                    parts[index] = kept
                else:
                    self._say(_TOO_LARGE if self.dtype == torch.float16 else "values that are not finite are not kept")
                    parts[index] = {name: value.float().cpu() for name, value in exact.items()}
        if records.stopped:
            self._say(f"nothing is added from here on: {records.stopped}")
        self.asked, self.hits = self.asked + len(x), self.hits + len(x) - len(missing)
        whole = {name: torch.stack([part[name].float() for part in parts]).to(x.device) for name in parts[0]}
        return whole.pop(""), whole

    def _of(self, identity: str) -> Records:
        if identity not in self._records:
            self._records[identity] = Records(self.folder / identity, self.bound)
            others = [folder.name for folder in self.folder.glob("*") if folder.name not in self._records]
            used = f"{show_bytes(_bytes_in(self.folder))} of {show_bytes(self.bound)} are used"
            get_root_logger().info(
                f"Teacher cache: {self.folder / identity}, {used}"
                + (f", also by {len(others)} other teachers or choices of layers." if others else ".")
            )
        return self._records[identity]

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            get_root_logger().warning(f"Teacher cache {self.folder}: {text}.")


def hit_rate(caches: Iterable[TeacherCache]) -> float:
    """The share of images that were found in some caches since the last call."""
    hits = asked = 0
    for cache in caches:
        hits, asked, cache.hits, cache.asked = hits + cache.hits, asked + cache.asked, 0, 0
    return hits / asked if asked else 0.0


def _key(image: Tensor) -> bytes:
    digest = hashlib.blake2b(f"{image.dtype} {tuple(image.shape)}".encode(), digest_size=16)
    digest.update(_bytes_of(image))
    return digest.digest()


def _bytes_of(value: Tensor) -> Any:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def _bytes_in(cache: Path) -> int:
    return sum(file.stat().st_size for file in cache.glob("*/*") if file.is_file())


def identity_of(net: nn.Module, block: Mapping[str, Any], layers: Iterable[str], device: torch.device) -> str:
    """A name for what a teacher's outputs depend on beside the image: weights, code, options, layers, precision.

    Args:
        net: its network.
        block: its block of the option file; where its weights lie does not matter.
        layers: those whose features it returns.
        device: where it runs.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, value in net.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(_bytes_of(value))
    for file in sorted(filter(None, {_source_of(type(module)) for module in net.modules()})):
        digest.update(Path(file).read_bytes())
    for key in registered_keys():
        if isinstance(block.get(key), str) and Path(block[key]).is_file():
            digest.update(Path(block[key]).read_bytes())
    options = {key: value for key, value in block.items() if key not in ("checkpoint", *registered_keys())}
    adapter = {key: value for key, value in vars(Adapter.on(net)).items() if key[0] != "_"}
    amp = str(torch.get_autocast_dtype(device.type)) if torch.is_autocast_enabled(device.type) else ""
    digest.update(json.dumps([options, adapter, list(layers), amp], sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _source_of(cls: type) -> str:
    """The file of a module's class; nothing for torch's own, and for what has none."""
    if cls.__module__.split(".")[0] == "torch":
        return ""
    try:
        return inspect.getsourcefile(cls) or ""
    except (OSError, TypeError):
        return ""
