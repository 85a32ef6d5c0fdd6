"""Saving and going on: BasicSR's files, written whole, with all that the next step depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import path as osp
from pathlib import Path
from typing import Any

from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from torch import nn

from kd_plugins import distributed
from kd_plugins.randomness import random_state, set_random_state
from kd_plugins.students.kept_student import keep_student
from kd_plugins.teachers.checkpoint import load_strictly, read_checkpoint
from kd_plugins.teachers.network_description import described
from kd_plugins.teachers.weight_names import named_as
from kd_plugins.training.checkpoint_files import Record, SaveError, write
from kd_plugins.training.option_changes import kinds

_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")  # shaped as the parameter


class SavedModel(SRModel):
    """SRModel whose checkpoints are written whole or not at all, and hold all that the next step depends on.

    The files and their keys are BasicSR's. The student's describes its network, too, so that it is a teacher or a student without
    further words. A state has these beside them: `files` (size and checksum of each network's file), `kinds` (the classes of
    optimizers and schedules), `seed`, `random` and `random_beside` (the generators of process 0 and of the others), `progress`,
    `best` (best scores), `bad_steps`.

    Attributes:
        progress: what the training loop notes of itself, kept in the state: `samples` of the epoch that are used up, the
            iteration that was `validated` last, and how many `images` the training data has.
        bad_steps: steps in a row that were skipped.
    """

    bad_steps = 0

    def __init__(self, opt: dict[str, Any]) -> None:
        self.progress: dict[str, int] = {}
        self._files: dict[str, Record] = {}
        self._network = described(opt["network_g"]) if opt["is_train"] else None
        super().__init__(opt)

    def kept_beside(self) -> dict[str, nn.Module]:
        """What is saved beside the student, by the label of its checkpoint."""
        return {}

    def save(self, epoch: int, current_iter: int) -> None:
        """As SRModel, and what is kept beside it; the state last, so that whatever it needs is there.

        Raises:
            SaveError: a file cannot be written.
        """
        self._files = {}
        self._random = distributed.all_gather_objects(random_state())
        error = ""
        try:
            if distributed.rank() == 0:
                keep_student(self.opt["path"]["experiments_root"], self.opt.get("chosen_student"))
            for label, module in self.kept_beside().items():
                self.save_network(module, label, current_iter)
            super().save(epoch, current_iter)
        except (SaveError, OSError) as found:
            error = str(found)
        if error := distributed.broadcast_object(error):  # process 0 writes, all of them stop
            raise SaveError(error)

    @master_only
    def save_network(
        self, net: nn.Module | Sequence[nn.Module], net_label: str, current_iter: int, param_key: str | Sequence[str] = "params"
    ) -> None:
        """As BaseModel's, which goes on without the file where it cannot be written.

        Raises:
            SaveError: it cannot be written.
        """
        nets = [net] if isinstance(net, nn.Module) else net
        keys = [param_key] if isinstance(param_key, str) else param_key
        content = {}
        for key, module in zip(keys, nets, strict=True):
            weights = self.get_bare_model(module).state_dict()
            content[key] = {name.removeprefix("module."): value.cpu() for name, value in weights.items()}
        name = f"{net_label}_{'latest' if current_iter == -1 else current_iter}.pth"
        network = self._network if net_label == "net_g" else None
        self._files[name] = write(osp.join(self.opt["path"]["models"], name), content, network)

    @master_only
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """As BaseModel's, with what it leaves out.

        Raises:
            SaveError: it cannot be written.
        """
        if current_iter == -1:
            return
        best = getattr(self, "best_metric_results", {})
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "kinds": kinds(self),
            "files": dict(self._files),
            "seed": self.opt.get("manual_seed"),
            "random": self._random[0],
            "random_beside": self._random[1:],
            "progress": dict(self.progress),
            # plain numbers: a metric may return NumPy's, which a safe loader refuses
            "best": {
                dataset: {metric: {**found, "val": float(found["val"])} for metric, found in metrics.items()}
                for dataset, metrics in best.items()
            },
            "bad_steps": self.bad_steps,
        }
        write(osp.join(self.opt["path"]["training_states"], f"{current_iter}.state"), state)

    def load_network(self, net: nn.Module, load_path: str, strict: bool = True, param_key: Any = "params") -> None:
        """As BaseModel's, from files that hold nothing but weights: BasicSR's, those of other frameworks, and safetensors.

        Raises:
            ValueError: the file cannot be read safely, has no such `param_key`, or does not fit the network.
        """
        net = self.get_bare_model(net)
        own = param_key in ("params", "params_ema", None)  # BasicSR's: what another framework saved has others
        weights, _ = read_checkpoint(Path(load_path), None if own else param_key, first=param_key if own else None)
        get_root_logger().info(f"Loading {type(net).__name__} from {load_path}.")
        if strict:
            load_strictly(net, weights, load_path)
            return
        weights = named_as(net.state_dict(), weights)
        self._print_different_keys_loading(net, weights, strict)
        net.load_state_dict(weights, strict=False)

    def resume_training(self, resume_state: Mapping[str, Any]) -> None:
        """As SRModel, with all that `save` keeps; a state of BasicSR's own has less.

        Raises:
            ValueError: it is that of another network.
        """
        super().resume_training(resume_state)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                kept = [optimizer.state[parameter].keys() for parameter in group["params"] if parameter in optimizer.state]
                if any(keys != kept[0] for keys in kept):
                    raise ValueError("the optimizer keeps less of some parameters than of others")
            for parameter, moments in optimizer.state.items():
                wrong = [key for key in moments if key in _MOMENTS and moments[key].shape != parameter.shape]
                if wrong:
                    raise ValueError(f"{wrong[0]} of the optimizer is {tuple(moments[wrong[0]].shape)}, not as its parameter")
                if not float(moments.get("step", 0)) >= 0:
                    raise ValueError(f"the optimizer has taken {float(moments['step'])} steps")
        for label, module in self.kept_beside().items():
            self.load_network(module, osp.join(self.opt["path"]["models"], f"{label}_{resume_state['iter']}.pth"))
        self.progress = {key: int(value) for key, value in (resume_state.get("progress") or {}).items()}
        self.bad_steps = int(resume_state.get("bad_steps", 0))
        self._resume_best(resume_state.get("best") or {})
        kept = [resume_state.get("random"), *resume_state.get("random_beside", ())]
        rank, size = distributed.rank(), distributed.world_size()
        if kept[0] and len(kept) == size:  # with another number of processes each begins with its own seed
            set_random_state(kept[rank])

    def _resume_best(self, best: Mapping[str, Any]) -> None:
        if not (self.opt.get("val") or {}).get("metrics"):
            return
        for dataset, metrics in best.items():
            self._initialize_best_metric_results(dataset)
            mine = self.best_metric_results[dataset]
            # the file may name other metrics by now, or read one the other way round
            mine.update(
                {name: dict(found) for name, found in metrics.items() if mine.get(name, {}).get("better") == found["better"]}
            )
