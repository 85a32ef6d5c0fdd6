"""The loop of a training: steps, and what happens between them."""

from __future__ import annotations

import datetime
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from traceback import clear_frames
from typing import Any

from basicsr.utils import AvgTimer, MessageLogger, get_root_logger
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from kd_plugins import distributed
from kd_plugins.data.bad_images import SKIPPED
from kd_plugins.data.loading import STOPPED, shared_loader
from kd_plugins.data.training_data import Position, TrainingData
from kd_plugins.errors import BadData, Interrupted, OutOfMemory, RunStopped, lacks_memory
from kd_plugins.options import OptionError
from kd_plugins.randomness import kept_randomness, random_state, set_random_state
from kd_plugins.terminal import bar
from kd_plugins.training.bad_steps import BadSteps
from kd_plugins.training.checkpoint_files import SaveError
from kd_plugins.training.interrupt import Interrupt


class Loop:
    """Trains a model to its last iteration: steps, log lines, saves, validations, and an orderly end when it is stopped.

    Args:
        opt: the options of the run.
        model: any model of BasicSR's kind.
        data: the training data.
        val_loaders: the validation data.
        tb_logger: TensorBoard's writer, or None.
        epoch: the epoch to begin in.
        current_iter: iterations that are done.
    """

    def __init__(
        self,
        opt: Mapping[str, Any],
        model: Any,
        data: TrainingData,
        val_loaders: Sequence[Any],
        tb_logger: Any = None,
        epoch: int = 0,
        current_iter: int = 0,
    ) -> None:
        self.opt, self.model, self.tb_logger = opt, model, tb_logger
        self.data, self.val_loaders = data, val_loaders
        self.epoch, self.current_iter, self.saved_at, self.begun_at = epoch, current_iter, current_iter, current_iter
        self.updater, saver = getattr(model, "updater", None), getattr(model, "saver", None)  # BasicSR's own models have no parts
        self.period: int = getattr(model, "period", 1)  # steps until each term has been computed
        self.progress = saver.progress if saver else {}  # what a state keeps of this loop
        self.logger, self.message_logger = get_root_logger(), MessageLogger(opt, current_iter + 1, tb_logger)
        self.message_logger.max_iters += 1  # it counts one step too few that are left: at the last, -1
        self.interrupt = Interrupt()
        self.is_whole = True  # whether the model is between steps, so that its state can be saved
        self.skipped: dict[str, int] = {}  # how often each bad image was skipped

    def run(self, total_iters: int) -> None:
        """Train.

        Args:
            total_iters: the last iteration.

        Raises:
            Interrupted: a signal came.
            BadSteps: too many steps in a row had numbers that are not finite.
            BadData: an image could not be read, or a worker of the loader died.
            OutOfMemory: there was not enough memory.
            SaveError: a checkpoint could not be written. For any other error the state is saved first.
        """
        start = time.time()
        steps = bar(initial=self.current_iter, total=total_iters, unit="it", leave=True)
        with logging_redirect_tqdm([self.logger]), steps, self.interrupt:
            try:
                if self.current_iter and self.progress:
                    self._validate_if_due()  # the state was saved before the validation of its iteration
                self._steps(total_iters, steps)
                self._count_skipped()
                self.logger.info(f"End of training. Time consumed: {datetime.timedelta(seconds=int(time.time() - start))}")
                self.model.save(epoch=-1, current_iter=-1)  # the latest
                self._validate()
            except Exception as error:
                if not lacks_memory(error):
                    self._end(error)
                    raise
                clear_frames(error.__traceback__)  # frees what the failed step still holds
                stop = OutOfMemory(f"not enough memory: {' '.join(str(error).split())[:200]}")
                self._end(stop)
                raise stop from error
            finally:
                if self.tb_logger:
                    self.tb_logger.flush()

    def _end(self, error: Exception) -> None:
        """Save the last whole step, if possible, and log why the run ends."""
        agreed = distributed.world_size() == 1 or isinstance(
            error, (Interrupted, BadSteps, BadData)
        )  # in all processes: saving takes them all
        if agreed and not isinstance(error, SaveError) and self.is_whole:
            self._save()
        at = f"Saved at iteration {self.saved_at}; `--auto_resume` continues from there" if self.saved_at else "Nothing was saved"
        if isinstance(error, RunStopped) and not isinstance(error, SaveError):
            error.args = (f"{error}. {at}",)
        self.logger.error(f"Stopped: {error}." if isinstance(error, RunStopped) else f"{type(error).__name__}: {error}. {at}.")

    def _steps(self, total_iters: int, shown: tqdm) -> None:
        data_timer, iter_timer = AvgTimer(), AvgTimer()
        with closing(self.data.batches(self.current_iter, (self.epoch, self.progress.get("samples", 0)))) as batches:
            for position, data in itertools.islice(batches, max(total_iters - self.current_iter, 0)):
                data_timer.record()
                self.interrupt.check(data.get(STOPPED, ""))
                self.step(data, position)
                iter_timer.record()
                shown.update()
                if self.current_iter % self.opt["logger"]["print_freq"] == 0:
                    self._log(time=iter_timer.get_avg_time(), data_time=data_timer.get_avg_time())
                if self.current_iter % int(self.opt["logger"]["save_checkpoint_freq"]) == 0:
                    self._save()
                self._validate_if_due()
                data_timer.start()
                iter_timer.start()

    def step(self, data: Any, position: Position = (0, 0)) -> None:
        """Take one step.

        Args:
            data: a batch.
            position: the epoch, and how many of its samples are used up after this batch.

        Raises:
            OptionError: the first step of the run, or of a stage, found options that do not go together: a crop too small for a
                loss, say.
            BadSteps, BadData: see `run`.
        """
        if STOPPED in data:
            raise BadData(data[STOPPED])
        self._note_skipped(data)
        is_first = self.current_iter in (self.begun_at, *(stage.first for stage in self.data.stages))
        restore = self._remember()
        self.current_iter += 1
        if self.updater:
            self.updater.updating = False
        try:
            self.model.update_learning_rate(self.current_iter, warmup_iter=self.opt["train"].get("warmup_iter", -1))
            self.model.feed_data(data)
            self.model.optimize_parameters(self.current_iter)
        except BadSteps:  # a skipped step counts as taken
            self._take(position)
            raise
        except Exception as error:
            restore()
            # a step that ended half-way through its update cannot be saved; other models do not tell
            self.is_whole = self.updater is not None and not self.updater.updating
            if not is_first or not isinstance(error, ValueError) or isinstance(error, OptionError):
                raise
            raise OptionError(f"the first step: {error}") from error
        self._take(position)

    def _take(self, position: Position) -> None:
        self.epoch, self.progress["samples"] = position
        self.progress["images"] = self.data.images

    def _remember(self) -> Callable[[], None]:
        """Copy what a step changes besides the networks; returns a function that restores it."""
        iteration, generators = self.current_iter, random_state()
        schedules = [(vars(scheduler), dict(vars(scheduler))) for scheduler in self.model.schedulers]
        groups = [group for optimizer in self.model.optimizers for group in optimizer.param_groups]
        rates = [group["lr"] for group in groups]

        def restore() -> None:
            self.current_iter = iteration
            set_random_state(generators)
            for schedule, before in schedules:
                schedule.update(before)
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate

        return restore

    def _note_skipped(self, data: Any) -> None:
        """Log each bad image once; another one took its place."""
        for text in itertools.chain.from_iterable(names.split("\n") for names in data.pop(SKIPPED, ())):
            if text and text not in self.skipped:
                self.logger.warning(f"{text}; another image takes its place.")
            if text:
                self.skipped[text] = self.skipped.get(text, 0) + 1

    def _count_skipped(self) -> None:
        found = distributed.all_gather_objects(self.skipped)
        if names := {name for own in found for name in own}:
            times = sum(sum(own.values()) for own in found)
            self.logger.warning(f"Bad images skipped in training: {len(names)}, {times} times in all.")

    def _log(self, **timing: float) -> None:
        lrs = self.model.get_current_learning_rate()
        place = {"epoch": self.epoch, "iter": self.current_iter}
        values = self.model.get_current_log()
        self.message_logger({**place, "lrs": lrs, **timing, **values})
        if self.tb_logger:
            total = sum(value for name, value in values.items() if name.startswith("l_") and not name.startswith("l_d_"))
            self.tb_logger.add_scalar("losses/total", total, self.current_iter)
            self.tb_logger.add_scalar("lr", lrs[0], self.current_iter)

    def _save(self) -> None:
        if self.saved_at != self.current_iter:
            self.logger.info("Saving models and training states.")
            self.model.save(self.epoch, self.current_iter)
            self.saved_at = self.current_iter

    def _validate_if_due(self) -> None:
        if self.opt.get("val") is not None and self.current_iter % int(self.opt["val"]["val_freq"]) == 0:
            self._validate()

    def _validate(self) -> None:
        """Validate, once for each iteration."""
        if self.opt.get("val") is None or self.progress.get("validated", -1) == self.current_iter:
            return
        with kept_randomness():  # a resumed run may validate once more or less
            for loader in self.val_loaders:
                if not self.opt["dist"]:
                    loader = self.interrupt.watch(loader)
                elif self.updater:  # of other models process 0 validates alone
                    loader = self.interrupt.watch(shared_loader(loader))
                self.model.validation(loader, self.current_iter, self.tb_logger, self.opt["val"].get("save_img", False))
        self.progress["validated"] = self.current_iter
