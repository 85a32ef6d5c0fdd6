"""Damage option files and checkpoints at random: each has to give a run or an error of ours, and to change nothing on disk.

    python tools/fuzz.py options --count 500 --seed 0
    python tools/fuzz.py checkpoints --count 200 --seed 0

An option file counts as trained if the run was built and took a step. What asks for more time or memory than a limit here (a
network of a million channels) is counted by itself: what a machine can hold is not ours to say.
"""

from __future__ import annotations

import argparse
import collections
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from damage_checkpoints import damaged_checkpoint, damaged_safetensors
from damage_options import damaged_options
from runs import close_log
from small_runs import TEACHER, further_blocks, small_runs

from kd_plugins.checks import check_file
from kd_plugins.errors import RunStopped
from kd_plugins.options import OptionError, option_errors
from kd_plugins.run_options import parse_options
from kd_plugins.train import build_run, train_pipeline
from kd_plugins.training.loop import Loop
from kd_plugins.training.run_log import held_log

SECONDS, MEMORY = 60, 3 << 30


class TooLarge(BaseException):
    """More time or memory was asked for than a damaged file may take here."""


@contextmanager
def within_limits() -> Iterator[None]:
    """Bound the time and the memory of what is inside.

    Raises:
        TooLarge: it asked for more.
    """

    def stop(*_: Any) -> None:
        raise TooLarge(f"{SECONDS} seconds")

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    limits = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, limits[1]))
    try:
        yield
    except MemoryError as error:
        raise TooLarge("memory") from error
    except (RuntimeError, TypeError, OverflowError) as error:
        if not any(said in str(error) for said in ("DefaultCPUAllocator", "Overflow", "too large", "storage size")):
            raise
        raise TooLarge("more than 64 bits can say") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _files(folder: Path) -> dict[str, int]:
    return {str(path): zlib.crc32(path.read_bytes()) if path.is_file() else 0 for path in sorted(folder.rglob("*"))}


class Options:
    """Option files of small runs, damaged.

    Args:
        folder: where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.bases, self.blocks = folder, list(small_runs(folder).values()), further_blocks(folder)

    def attempt(self, random: Random) -> str:
        """Damage one, build what it says, and take a step.

        Returns:
            'refused' or 'trained'; 'too large' for the limits here. Any other error than ours comes through.
        """
        file = self.folder / "fuzz.yml"
        file.write_bytes(damaged_options(random.choice(self.bases), self.blocks, random))
        before = _files(self.folder)
        try:
            with within_limits():
                self._train(file)
        except (OptionError, RunStopped) as error:
            assert str(error).strip()
            return "refused"
        except TooLarge:
            return "too large"
        finally:
            assert _files(self.folder) == before, "something changed on disk"
        return "trained"

    def _train(self, file: Path) -> None:
        opt, args = parse_options(str(self.folder), True, ["-opt", str(file)], partial(check_file, is_train=True))
        with held_log(), option_errors(args.opt):
            model, data, *_ = build_run(opt)
        with held_log():
            Loop(opt, model, data, []).step(next(data.batches(0, (0, 0)))[1])
            model.get_current_log()


class Checkpoints:
    """A short run of each method, whose files are damaged one at a time.

    Args:
        folder: where they run; an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.victims = folder, list[tuple[Path, dict[str, Any]]]()
        further_blocks(folder)
        runs = small_runs(folder)
        runs["SKD"]["train"]["distill"]["gk"] = {"window": 8, "learnable": True}
        for method in ("SLKD", "SKD", "DCKD"):
            options = runs[method]
            del options["datasets"]["val"], options["val"]
            options["datasets"]["train"]["gt_size"] = 16
            options["name"] = method
            self._run(options)
        options = runs["SLKD"]
        weights = torch.load(folder / "experiments" / "SLKD" / "models" / "net_g_2.pth", weights_only=True)
        torch.save(weights, folder / "own.pth")
        typed = {"type": "Restormer", **TEACHER, "checkpoint": str(folder / "teacher.pth")}
        self.victims += [
            (folder / "own.pth", self._changed(options, path={"pretrain_network_g": str(folder / "own.pth")})),
            (folder / "teacher.pth", self._changed(options, teacher=typed)),
            (folder / "teacher.pth", self._changed(options, teacher={"ensemble": [options["teacher"], typed]})),
            (folder / "teacher.safetensors", self._changed(options)),
            (folder / "tokenizer.safetensors", self._changed(runs["DCKD"])),
        ]

    def _changed(self, options: dict[str, Any], **blocks: Any) -> dict[str, Any]:
        return {**options, **blocks, "name": "other"}

    def _run(self, options: dict[str, Any]) -> None:
        """Run, and note its files; the networks for a state without records as well, which says less of them."""
        train_pipeline(str(self.folder), ["-opt", self._write(options)])
        root = self.folder / "experiments" / options["name"]
        state, bare = root / "training_states" / "2.state", self.folder / f"bare_{options['name']}.state"
        content = torch.load(state, weights_only=True)
        del content["files"]
        torch.save(content, bare)
        for own in (state, bare):
            resumed = {**options, "path": {"resume_state": str(own)}, "train": {**options["train"], "total_iter": 3}}
            networks = sorted((root / "models").glob("*_2.pth"))
            self.victims += [(own, resumed), *((network, resumed) for network in networks)]

    def _write(self, options: dict[str, Any]) -> str:
        file = self.folder / "fuzz.yml"
        file.write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
        return str(file)

    def attempt(self, random: Random) -> str:
        """Damage one file and let a run begin with it.

        Returns:
            'refused'; 'harmless' where a run went on with it: every name, type and shape is still there; or 'too large'.
        """
        victim, options = random.choice(self.victims)
        good = victim.read_bytes()
        damage = damaged_safetensors if victim.suffix == ".safetensors" else damaged_checkpoint
        while (bad := damage(good, random)) == good:
            pass
        file = self._write(options)
        root = self.folder / "experiments" / options["name"]
        aside = self.folder / "aside"
        if root.exists():
            shutil.copytree(root, aside)  # a run that goes on writes there
        victim.write_bytes(bad)
        before = _files(self.folder)
        try:
            with within_limits():
                train_pipeline(str(self.folder), ["-opt", file])
        except (OptionError, TooLarge) as error:
            assert isinstance(error, TooLarge) or victim.name in str(error) or "teacher" in str(error), error
            assert _files(self.folder) == before, "something changed on disk"
            return "refused" if isinstance(error, OptionError) else "too large"
        finally:
            shutil.rmtree(root, ignore_errors=True)
            if aside.exists():
                aside.rename(root)
            victim.write_bytes(good)
            close_log()
            assert not Path("pickled_code_was_run").exists(), "pickled code was run"
        return "harmless"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["options", "checkpoints"])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number to begin with, to see one of them again")
    args = parser.parse_args()
    outcomes: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        attempt = Options(folder).attempt if args.what == "options" else Checkpoints(folder).attempt
        for number in range(args.first, args.first + args.count):
            try:
                outcomes[attempt(Random(f"{args.seed}/{number}"))] += 1
            except Exception:
                outcomes["WRONG"] += 1
                print(f"---- seed {args.seed}, number {number}:", (folder / "fuzz.yml").read_bytes()[:5000], sep="\n")
                traceback.print_exc(limit=-6)
            sys.stdout.flush()
    print(f"{args.count} {args.what}, seed {args.seed}:", ", ".join(f"{count} {name}" for name, count in outcomes.items()))
    return 1 if outcomes["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
