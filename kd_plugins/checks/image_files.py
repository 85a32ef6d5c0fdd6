"""The images that a dataset of pairs or of single images names: whether there are some, and whether they pair."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from os import path as osp
from pathlib import Path as File
from typing import Any

from kd_plugins.arguments import Path
from kd_plugins.checks.findings import Findings
from kd_plugins.data.photos import SUFFIXES
from kd_plugins.home import expand, expand_in
from kd_plugins.messages import show

_LQ, _GT = "dataroot_lq", "dataroot_gt"
_PAIRED, _REAL = "PairedImageDataset", "RealESRGANPairedDataset"
_ROOTS = {_PAIRED: (_GT, _LQ), _REAL: (_GT, _LQ), "SingleImageDataset": (_LQ,), "DegradedImageDataset": (_LQ,)}
_CANDIDATES = 20  # templates that are tried


def check_images(findings: Findings, path: Path, block: Mapping[Any, Any]) -> None:
    """Report folders, databases and lists that hold no images, or that do not pair; folders are listed, no image is read."""
    kind, backend = str(block.get("type")), block.get("io_backend")
    backend = backend.get("type") if isinstance(backend, Mapping) else None
    roots = expand_in(block, _ROOTS.get(kind, ()))
    if not roots or len(roots) < len(_ROOTS[kind]) or not all(map(osp.exists, roots.values())):  # not known, or said elsewhere
        return
    if files := [key for key, root in roots.items() if not osp.isdir(root)]:
        findings.error((*path, files[0]), f"{show(block[files[0]])}, a file, expected a folder")
        return
    chosen = "meta_info" if kind == _REAL else "meta_info_file"
    for key, text in _faults(kind, backend, roots, block, chosen):
        findings.error((*path, key), text)
    strays = {
        key: sorted(_names(root) - _images(root)) for key, root in roots.items() if backend == "disk" and not block.get(chosen)
    }
    for key, names in strays.items():
        if names and kind in (_PAIRED, _REAL, "SingleImageDataset"):
            more = f" and {len(names) - 1} files more" if len(names) > 1 else ""
            findings.warning((*path, key), f"{show(block[key])}, holds {names[0]!r}{more}, no image by the name; left out")


def _faults(kind: str, backend: Any, roots: Mapping[str, str], block: Mapping[Any, Any], chosen: str) -> Iterator[tuple[str, str]]:
    """What is wrong, by the key that it is wrong with."""
    template = block.get("filename_tmpl", "{}") if _GT in roots else "{}"
    if not _is_template(template):
        yield "filename_tmpl", f"{show(template)}, expected a name with one {{}} in it, which stands for that of the clean image"
    elif backend == "lmdb":
        yield from _database_faults(roots, block)
    elif backend == "disk" and isinstance(block.get(chosen), str):
        yield from _list_faults(kind, roots, block[chosen], chosen, template)
    elif backend == "disk" and kind == "SingleImageDataset" and chosen in block:
        yield chosen, "nothing, expected a file, or no such key"
    elif backend == "disk" and kind == "DegradedImageDataset":
        if not any(osp.splitext(name)[1].lower() in SUFFIXES for _, _, names in os.walk(roots[_LQ]) for name in names):
            yield _LQ, _empty(block[_LQ])
    elif backend == "disk":
        yield from _folder_faults(roots, block, template)


def _is_template(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.format("a\0") == value.replace("{}", "a\0") and value.count("{}") == 1
    except (IndexError, KeyError, ValueError):
        return False


def _empty(root: str) -> str:
    return f"{show(root)}, holds no image ({', '.join(sorted(SUFFIXES))})"


def _names(root: str) -> set[str]:
    """The files of a folder, as BasicSR lists them."""
    with os.scandir(root) as entries:
        return {entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file()}


def _images(root: str) -> set[str]:
    return {name for name in _names(root) if osp.splitext(name)[1].lower() in SUFFIXES}


def _partner(clean: str, template: str) -> str:
    stem, suffix = osp.splitext(osp.basename(clean))
    return f"{template.format(stem)}{suffix}"


def _folder_faults(roots: Mapping[str, str], block: Mapping[Any, Any], template: str) -> Iterator[tuple[str, str]]:
    images = {key: _images(root) for key, root in roots.items()}
    empty = [key for key, names in images.items() if not names]
    for key in empty:
        yield key, _empty(block[key])
    if empty or _GT not in images:
        return
    clean, degraded = sorted(images[_GT]), images[_LQ]
    partners = {name: _partner(name, template) for name in clean}
    alone = [name for name in clean if partners[name] not in degraded]
    if alone:
        count = f"; {len(alone)} of {len(clean)} have none" if len(alone) > 1 else ""
        hint = _hint(clean, degraded)
        yield _LQ, f"{show(block[_LQ])}, holds no {partners[alone[0]]!r} for {alone[0]!r} of {_GT}{count}, expected {hint}"
    elif unpaired := sorted(degraded - set(partners.values())):
        yield (
            _LQ,
            f"{show(block[_LQ])}, holds {len(degraded)} images and {_GT} {len(clean)}: {unpaired[0]!r} belongs to none of them, "
            "expected one for each, or `meta_info_file` with the names of those to take",
        )


def _hint(clean: Sequence[str], degraded: set[str]) -> str:
    """What would make all of them pair, as far as the names tell."""
    stem, suffix = osp.splitext(max(clean, key=len))  # that is found in the fewest others
    stems = sorted((osp.splitext(name) for name in degraded if stem in name), key=lambda parts: len(parts[0]))
    for other in [other for other, ending in stems if ending == suffix][:_CANDIDATES]:
        for found in re.finditer(re.escape(stem), other):
            template = f"{other[: found.start()]}{{}}{other[found.end() :]}"
            if _is_template(template) and all(_partner(name, template) in degraded for name in clean):
                return f"`filename_tmpl: '{template}'`"
    endings = sorted({osp.splitext(name)[1] for name in degraded})
    if suffix not in endings:
        return f"names that end in {suffix} (those there end in {', '.join(endings)})"
    return "one for each, of its name (or `filename_tmpl`), or `meta_info_file` with the names of those to take"


def _list_faults(kind: str, roots: Mapping[str, str], file: str, key: str, template: str) -> Iterator[tuple[str, str]]:
    try:
        lines = expand(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        if file and osp.exists(expand(file)):  # else said elsewhere
            yield key, f"{show(file)}, cannot be read: {getattr(error, 'strerror', None) or error}"
        return
    if not any(line.strip() for line in lines):
        yield key, f"{show(file)}, names no image"
        return
    listed = {root: _names(root) for root in roots.values()}
    missing: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        names = _named(kind, line, template)
        if names is None:
            if kind != "DegradedImageDataset" or line.strip():
                expected = "`clean.png, degraded.png`" if kind == _REAL else "the name of an image"
                yield key, f"{show(file)}, line {number} is {show(line)}, expected {expected}"
                return
            continue
        for root_key, name in zip(roots, names, strict=True):
            root = roots[root_key]
            if name not in listed[root] and not osp.isfile(osp.join(root, name)):
                missing.setdefault(root_key, []).append(name)
    for root_key, names in missing.items():
        more = f", nor {len(names) - 1} others" if len(names) > 1 else ""
        yield key, f"{show(file)}, names {names[0]!r}, which {root_key} does not hold{more}"


def _named(kind: str, line: str, template: str) -> tuple[str, ...] | None:
    """The files that a line names, as the dataset reads it: in the order of its roots; None where it names none."""
    if kind == _REAL:
        names = tuple(line.strip().split(", "))
        return names if len(names) == 2 and all(names) else None
    name = line.strip().split(" ")[0]
    if not name:
        return None
    return (name, _partner(name, template)) if kind == _PAIRED else (name,)


def _database_faults(roots: Mapping[str, str], block: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    if find_spec("lmdb") is None:
        yield "io_backend", "lmdb, the package lmdb is not installed"
    keys: dict[str, set[str]] = {}
    for key, root in roots.items():
        missing = [name for name in ("data.mdb", "meta_info.txt") if not osp.isfile(osp.join(root, name))]
        if not root.endswith(".lmdb") or missing:
            wrong = f"without {missing[0]}" if missing else "whose name does not end in .lmdb"
            yield key, f"{show(block[key])}, {wrong}, expected a database that BasicSR's scripts made: data.mdb and meta_info.txt"
            continue
        lines = File(root, "meta_info.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        keys[key] = {line.split(".")[0] for line in lines if line.strip()}
        if not keys[key]:
            yield key, f"{show(block[key])}, its meta_info.txt names no image"
    if len(keys) == 2 and all(keys.values()) and (different := sorted(keys[_GT] ^ keys[_LQ])):
        has, other = (_GT, _LQ) if different[0] in keys[_GT] else (_LQ, _GT)
        yield _LQ, f"{show(block[_LQ])}, {len(different)} keys differ: {different[0]!r} is in {has}, not in {other}"
