"""Damage option files and checkpoints at random: each has to give a run or an error of ours, and to change nothing on disk.

    python tools/fuzz.py options --count 500 --seed 0
    python tools/fuzz.py checkpoints --count 200 --seed 0

Values that would only be too large for the machine (a network of a million channels) are left out: what a machine can hold is not
ours to say.
"""

from __future__ import annotations

import argparse
import collections
import copy
import io
import os
import pickle
import shutil
import sys
import tempfile
import traceback
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from small_runs import TEACHER, small_runs

from kd_plugins.archs import Restormer
from kd_plugins.checks import check_file
from kd_plugins.options import OptionError, option_errors, parse_options
from kd_plugins.train import build_run, held_log, train_pipeline

VALUES = (
    *(None, True, False, -1, 0, 1, 2, 3, 7, 0.5, -0.5, 1e-4, float("nan"), float("inf")),
    *("", "x", "auto", "no", "1e-4", "2025-13-01", "/", "~", "é\u2028"),
    *([], {}, [1], ["x"], [[]], [None], {"a": 1}, {"type": "x"}, {"type": None}, [{"type": "L1Loss"}]),
)
CODE = "!!python/object/apply:os.getcwd []"
TEXTS = ("\t", ":", "- ", "{", "}", "[", "]", "'", '"', "&a ", "*a ", CODE, "!!binary ", "%", "\x00", "?")


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a tree of options with each of its keys."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from _places(node[key])


def damaged_options(options: dict[str, Any], random: Random) -> str:
    """The text of an option file in which one to three things were changed."""
    options = copy.deepcopy(options)
    for _ in range(random.randint(1, 3)):
        places = list(_places(options))
        if not places:
            break
        (node, key), (other, from_key) = random.choice(places), random.choice(places)
        what = random.choice(("value", "value", "delete", "rename", "move", "wrap", "add", "number"))
        if what == "value":
            node[key] = copy.deepcopy(random.choice(VALUES))
        elif what == "delete":
            del node[key]
        elif what == "rename" and isinstance(node, dict):
            name = str(key)
            node[random.choice((name + "s", name[:-1], name.upper(), name[::-1], 1, None))] = node.pop(key)
        elif what == "move":
            node[key] = copy.deepcopy(other[from_key])
        elif what == "wrap":
            node[key] = random.choice(([node[key]], {"type": node[key]}, {key: node[key]}, str(node[key])))
        elif what == "add" and isinstance(node, dict):
            node[random.choice(("type", "loss_weight", "window", "checkpoint", "x", 3))] = copy.deepcopy(random.choice(VALUES))
        elif what == "number" and isinstance(node[key], (int, float)):
            node[key] = random.choice((-node[key], node[key] + 1, node[key] / 2, str(node[key]), [node[key]]))
    text = yaml.safe_dump(options, sort_keys=False, allow_unicode=True)
    if random.random() < 0.2:
        at = random.randint(0, len(text))
        text = random.choice(
            (text[:at] + random.choice(TEXTS) + text[at:], text[:at], text[:at] + text[at + random.randint(1, 9) :])
        )
    return text


class Options:
    """Option files of small runs, damaged.

    Args:
        folder: where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.bases = folder, list(small_runs(folder).values())

    def attempt(self, random: Random) -> str:
        """Damage one, and build what it says: 'refused', or 'built'. Anything else than an OptionError comes through."""
        file = self.folder / "fuzz.yml"
        file.write_text(damaged_options(random.choice(self.bases), random), encoding="utf-8")
        try:
            opt, args = parse_options(str(self.folder), True, ["-opt", str(file)], partial(check_file, is_train=True))
            with held_log(), option_errors(args.opt):
                build_run(opt)
        except OptionError as error:
            assert str(error).strip()
            return "refused"
        return "built"


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pickled_code_was_run",)


def damaged_content(content: dict[str, Any], random: Random) -> dict[str, Any]:
    """A checkpoint in which one thing was changed: a key, a shape, a type, or a piece of code put into it."""
    content = copy.deepcopy(content)
    node, key = random.choice(list(_places(content)))
    what = random.choice(("delete", "rename", "type", "type", "shape", "code"))
    if what == "delete":
        del node[key]
    elif what == "rename" and isinstance(node, dict):
        node[f"{key}_"] = node.pop(key)
    elif what == "shape" and isinstance(node[key], torch.Tensor):
        node[key] = random.choice((node[key][None], node[key].flatten()[:-1], node[key].new_zeros(())))
    elif what == "code":
        node[key] = _Code()
    else:
        node[key] = random.choice((None, "x", -1, [], {}, [1], {"a": 1}, torch.zeros(2), 0.5))
    return content


def damaged_checkpoint(data: bytes, random: Random) -> bytes:
    """A checkpoint in which bits were flipped, a part is missing, or one thing in it was changed."""
    what = random.choice(("bits", "cut", "content", "content", "pickle"))
    if what == "bits":
        flipped = bytearray(data)
        for _ in range(random.randint(1, 8)):
            flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
        return bytes(flipped)
    if what == "cut":
        start = random.randrange(len(data))
        return random.choice((data[:start], data[:start] + data[start + random.randint(1, 999) :], b""))
    if what == "pickle":
        return pickle.dumps(_Code())
    buffer = io.BytesIO()
    torch.save(damaged_content(torch.load(io.BytesIO(data), weights_only=True), random), buffer)
    return buffer.getvalue()


def _files(folder: Path) -> dict[str, int]:
    return {str(path): zlib.crc32(path.read_bytes()) if path.is_file() else 0 for path in sorted(folder.rglob("*"))}


class Checkpoints:
    """A short run, whose files are damaged one at a time.

    Args:
        folder: where it runs; an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.options = folder, small_runs(folder)["SLKD"]
        del self.options["datasets"]["val"], self.options["val"]
        self.options["datasets"]["train"]["gt_size"] = 16
        self.options["path"]["strict_load_g"] = True
        train_pipeline(str(folder), ["-opt", self._write({})])
        root = folder / "experiments" / "small"
        weights = torch.load(root / "models" / "net_g_2.pth", weights_only=True)
        torch.save(weights, folder / "own.pth")
        torch.save({"params": Restormer(**TEACHER).state_dict()}, folder / "teacher.pth")
        network = {"type": "Restormer", **TEACHER}
        state, models = root / "training_states" / "2.state", root / "models"
        resume: dict[str, Any] = {"path": {"resume_state": str(state)}}
        self.victims: list[tuple[Path, dict[str, Any]]] = [
            (state, resume),
            (models / "net_g_2.pth", resume),
            (models / "net_scm_2.pth", resume),
            (folder / "own.pth", {"path": {"pretrain_network_g": str(folder / "own.pth")}}),
            (folder / "teacher.pth", {"teacher": {**network, "checkpoint": str(folder / "teacher.pth")}}),
            (folder / "teacher.safetensors", {}),
        ]

    def _write(self, changes: dict[str, Any]) -> str:
        file = self.folder / "fuzz.yml"
        file.write_text(yaml.safe_dump({**self.options, **changes}, sort_keys=False), encoding="utf-8")
        return str(file)

    def attempt(self, random: Random) -> str:
        """Damage one file and let a run begin with it: 'refused', or 'harmless' where every name, type and shape is still there."""
        victim, changes = random.choice(self.victims)
        good = victim.read_bytes()
        bad = damaged_checkpoint(good, random) if victim.suffix != ".safetensors" else damaged_bytes(good, random)
        file = self._write(changes)
        victim.write_bytes(bad)
        before = _files(self.folder)
        try:
            # one step more than the state has; where there is none, elsewhere
            forced = [
                "train:total_iter=3",
                "name=small" if "path" in changes and "resume_state" in changes["path"] else "name=other",
            ]
            train_pipeline(str(self.folder), ["-opt", file, "--force_yml", *forced])
        except OptionError as error:
            assert victim.name in str(error) or "teacher" in str(error), error
            assert _files(self.folder) == before, "something changed on disk"
            return "refused"
        finally:
            shutil.rmtree(self.folder / "experiments" / "other", ignore_errors=True)
            victim.write_bytes(good)
            assert not Path("pickled_code_was_run").exists(), "pickled code was run"
        return "harmless"


def damaged_bytes(data: bytes, random: Random) -> bytes:
    """As `damaged_checkpoint`, for a file that is no pickle."""
    while True:
        bad = damaged_checkpoint(data, _NoContent(random.random()))
        if bad != data:
            return bad


class _NoContent(Random):
    def choice(self, seq: Any) -> Any:
        return super().choice([item for item in seq if item != "content"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["options", "checkpoints"])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    outcomes: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        attempt = Options(folder).attempt if args.what == "options" else Checkpoints(folder).attempt
        for number in range(args.count):
            try:
                outcomes[attempt(Random(f"{args.seed}/{number}"))] += 1
            except Exception:
                outcomes["WRONG"] += 1
                print(f"---- seed {args.seed}, number {number}:", (folder / "fuzz.yml").read_text(encoding="utf-8"), sep="\n")
                traceback.print_exc()
    print(f"{args.count} {args.what}, seed {args.seed}:", ", ".join(f"{count} {name}" for name, count in outcomes.items()))
    return 1 if outcomes["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
