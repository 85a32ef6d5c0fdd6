"""Where the option file of a resumed run differs from its state: the optimizer is the state's, the schedule the file's."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

_TELLING = ("betas", "momentum", "periods", "milestones", "T_max")  # arguments that not every kind has
ANOTHER_RUN = "`gan_opt` joins or leaves in a new run, from `pretrain_network_g`"


def kinds(model: Any) -> dict[str, list[str]]:
    """The classes of a model's optimizers and schedulers, for its state."""
    return {part: [type(each).__name__ for each in getattr(model, part)] for part in ("optimizers", "schedulers")}


def changes(model: Any, state: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each argument of optimizer or schedule that the option file changes.

    Args:
        model: as it was built, before it is resumed.
        state: to resume from.

    Raises:
        ValueError: the optimizer or the schedule is of another kind.
    """
    if (here := len(model.optimizers)) != (there := len(state["optimizers"])):
        raise ValueError(f"it has {there} optimizers, not {here}: {ANOTHER_RUN}")
    for part in ("optimizers", "schedulers"):
        names = (state.get("kinds") or {}).get(part)
        for index, (mine, saved) in enumerate(zip(getattr(model, part), state[part], strict=True)):
            key = "train:scheduler" if part == "schedulers" else ("train:optim_g", "train:optim_d")[index]
            own, kept = _arguments(mine, mine.state_dict()), _arguments(mine, saved)
            name, was = type(mine).__name__, names[index] if names else ""  # BasicSR's own states do not say it
            if was != name if was else any((word in own) != (word in kept) for word in _TELLING):
                raise ValueError(f"{key}: type: {name}, but it has {was or 'another'}; expected that, or another `name`")
            for argument in own.keys() & kept.keys():
                if own[argument] != kept[argument]:
                    rest = " from here on" if part == "schedulers" else ", but the run continues with its state's"
                    yield f"{key}:{argument}: {own[argument]}{rest}, {kept[argument]}{' before' * (part == 'schedulers')}."


def _arguments(part: Any, content: Mapping[str, Any]) -> dict[str, Any]:
    """What an option file says of an optimizer or a schedule, out of its state."""
    if "param_groups" in content:
        group = dict(content["param_groups"][0])
        content = {**group, "lr": group.get("initial_lr", group.get("lr"))}
    named = [name for name in inspect.signature(type(part)).parameters if name not in ("params", "optimizer", "last_epoch")]
    return {name: _plain(content[name]) for name in (*named, *_TELLING) if name in content}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, dict) else value
