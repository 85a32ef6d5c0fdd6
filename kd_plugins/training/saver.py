"""Saving and resuming: BasicSR's files, written whole, with all that the next step depends on."""

from __future__ import annotations

from collections.abc import Mapping
from os import path as osp
from pathlib import Path
from typing import Any

from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from torch import nn

from kd_plugins import distributed
from kd_plugins.randomness import random_state, set_random_state
from kd_plugins.students.kept_student import keep_student
from kd_plugins.teachers.checkpoint import load_strictly, read_checkpoint
from kd_plugins.training.checkpoint_files import Record, SaveError, write

Checkpoint = Mapping[str, nn.Module]
"""The networks of one file, by the key of their weights: `params`, `params_ema`."""


class Saver:
    """Writes the checkpoints of a run, each of them whole or not at all, and resumes from them.

    The files and their keys are BasicSR's. The student's file also describes its network, so that it is a teacher or a student
    without further words. A state holds what the caller passes, and `files` (size and checksum of each network's file), `seed`,
    `random` and `random_beside` (the generators of rank 0 and of the others) and `progress`.

    Args:
        path: the folders: `models`, `training_states`, and `experiments_root`, of the run.
        network: the description of the student's network (see `described`), or None.
        seed: of the run.
        chosen_student: a student that the run made of its teacher (see `keep_student`), or None.

    Attributes:
        progress: what the training loop notes of itself: `samples` of the epoch that are used up, the iteration that was
            `validated` last, and how many `images` the training data has.
    """

    def __init__(self, path: Mapping[str, Any], network: Any = None, seed: int | None = None, chosen_student: Any = None) -> None:
        self.path, self.network, self.seed, self.chosen_student = path, network, seed, chosen_student
        self.progress: dict[str, int] = {}
        self._files: dict[str, Record] = {}

    def save(self, epoch: int, iteration: int, checkpoints: Mapping[str, Checkpoint], state: Mapping[str, Any]) -> None:
        """Save a run; the state comes last, so that whatever it needs is there. All processes call this.

        Args:
            epoch: the epoch.
            iteration: steps that are done; -1 saves the networks alone, as the latest.
            checkpoints: the networks by the label of their file.
            state: what else the next step depends on.

        Raises:
            SaveError: a file cannot be written; in all processes, though rank 0 alone writes.
        """
        self._files, random, error = {}, distributed.all_gather_objects(random_state()), ""
        try:
            if distributed.rank() == 0:
                keep_student(self.path["experiments_root"], self.chosen_student)
            for label, checkpoint in checkpoints.items():
                self.write_network(label, iteration, checkpoint)
            if iteration != -1:
                self._write_state({"epoch": epoch, "iter": iteration, "random": random[0], "random_beside": random[1:], **state})
        except (SaveError, OSError) as found:
            error = str(found)
        if error := distributed.broadcast_object(error):
            raise SaveError(error)

    @master_only
    def write_network(self, label: str, iteration: int, checkpoint: Checkpoint) -> None:
        """Write one file of networks.

        Raises:
            SaveError: it cannot be written.
        """
        content = {}
        for key, net in checkpoint.items():
            weights = distributed.unwrap_model(net).state_dict()
            content[key] = {name.removeprefix("module."): value.cpu() for name, value in weights.items()}
        name = f"{label}_{'latest' if iteration == -1 else iteration}.pth"
        described = self.network if label == "net_g" else None
        self._files[name] = write(osp.join(self.path["models"], name), content, described)

    @master_only
    def _write_state(self, state: dict[str, Any]) -> None:
        own = {"files": dict(self._files), "seed": self.seed, "progress": dict(self.progress)}
        write(osp.join(self.path["training_states"], f"{state['iter']}.state"), {**state, **own})

    def resume(self, state: Mapping[str, Any], networks: Mapping[str, nn.Module]) -> None:
        """Load the networks of a state, and restore progress and random generators; BasicSR's own states hold less.

        Args:
            state: as `load_state` reads it.
            networks: those to load, by label.

        Raises:
            ValueError: a file is that of another network.
        """
        for label, net in networks.items():
            file = osp.join(self.path["models"], f"{label}_{state['iter']}.pth")
            get_root_logger().info(f"Loading {label} from {file}.")
            load_strictly(distributed.unwrap_model(net), read_checkpoint(Path(file), first="params")[0], file)
        self.progress.update({key: int(value) for key, value in (state.get("progress") or {}).items()})
        random = [state.get("random"), *state.get("random_beside", ())]
        if random[0] and len(random) == distributed.world_size():  # else each process begins with its own seed
            set_random_state(random[distributed.rank()])
