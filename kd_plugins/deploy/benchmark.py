"""What models take, side by side: time, memory, parameters, FLOPs, in each form in which they can run."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kd_plugins.deploy.model import find_device
from kd_plugins.deploy.peak_memory import peak_memory
from kd_plugins.deploy.variants import Variant, told_apart
from kd_plugins.metrics.complexity import count_flops
from kd_plugins.metrics.latency import REPEATS, Latency, describe_machine, run_to_end, take_turns, using_threads
from kd_plugins.tables import render_table


class Measured(NamedTuple):
    """What a model takes at one size.

    Attributes:
        model: its name.
        form: how it was run.
        size: height and width of the image.
        latency: of one image.
        of_the_first: that over the first model's.
        memory: bytes, see `peak_memory`; None where it is not known.
        params: number of parameters; None for exported files.
        flops: see `count_flops`; likewise.
    """

    model: str
    form: str
    size: tuple[int, int]
    latency: Latency
    of_the_first: float
    memory: int | None
    params: int | None
    flops: int | None


def benchmark(
    wanted: Sequence[Variant],
    sizes: Sequence[tuple[int, int]],
    threads: int | None = None,
    repeats: int = REPEATS,
    note: Callable[[str], Any] = lambda line: None,
) -> Iterator[Measured]:
    """Measure models, all of them alternately, each warm.

    Args:
        wanted: what is compared; the first is what others are related to.
        sizes: height and width of the images.
        threads: of the CPU; by default as many as PyTorch takes.
        repeats: how often each is timed.
        note: called with a sentence for whatever is left out: what does not run here, or not at a size.

    Yields:
        For each size, one after another, what each model takes.

    Raises:
        ValueError: a model cannot be loaded.
    """
    with using_threads(threads), torch.inference_mode():
        loaded = [variant.load() for variant in wanted]
        names = told_apart({variant.source: each.name for variant, each in zip(wanted, loaded, strict=True)})
        for height, width in sizes:
            running = []
            for variant, each in zip(wanted, loaded, strict=True):
                try:
                    run_to_end(each.run, each.example(height, width))
                    running.append((variant, each))
                except Exception as error:  # a compiler that is missing, a size that is not taken, memory
                    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
                    note(f"{names[variant.source]}, {variant.form}, at {height}x{width} is left out: {reason[:200]}")
            passes = [partial(run_to_end, each.run, each.example(height, width)) for _, each in running]
            times = take_turns(passes, repeats) if passes else []
            flops: dict[str, int] = {}
            for (variant, each), latency in zip(running, times, strict=True):
                if each.net is not None and variant.source not in flops:
                    flops[variant.source] = count_flops(each.net, each.example(height, width))
                yield Measured(
                    names[variant.source],
                    variant.form if each.precision == "fp32" else f"{variant.form}, {each.precision}",
                    (height, width),
                    latency,
                    latency.median / times[0].median,
                    peak_memory(variant, (height, width), torch.get_num_threads()),
                    sum(p.numel() for p in each.net.parameters()) if each.net is not None else None,
                    flops.get(variant.source),
                )


def as_markdown(measured: Sequence[Measured], where: str) -> str:
    """Tables, one for each size.

    Args:
        measured: in the order of `benchmark`.
        where: the machine, in words.
    """
    tables = []
    for size in dict.fromkeys(each.size for each in measured):
        rows = [
            [
                each.model,
                each.form,
                "" if each.params is None else f"{each.params / 1e6:.3f} M",
                "" if each.flops is None else f"{each.flops / 1e9:.3f} G",
                str(each.latency),
                f"{each.of_the_first:.3f}",
                "" if each.memory is None else f"{each.memory / 2**20:.0f} MiB",
            ]
            for each in measured
            if each.size == size
        ]
        columns = ["model", "form", "parameters", "FLOPs", "latency (fastest - slowest)", "of the first", "memory"]
        tables.append(render_table(f"{size[0]}x{size[1]} on {where}", columns, rows, markdown=True))
    return "\n".join(tables)


def as_json(measured: Sequence[Measured], machine: dict[str, Any]) -> dict[str, Any]:
    """The same for programs: times in milliseconds, memory in bytes."""
    results = []
    for each in measured:
        median, fastest, slowest = (1e3 * seconds for seconds in each.latency)
        result = {**each._asdict(), "median_ms": median, "fastest_ms": fastest, "slowest_ms": slowest}
        del result["latency"]
        results.append(result)
    return {**machine, "results": results}


def describe_here(device: str, threads: int | None) -> dict[str, Any]:
    """The machine and its software, as `as_json` has them."""
    with using_threads(threads):
        where = describe_machine(find_device(device))
        count = torch.get_num_threads()
    return {"device": where, "processor": _processor(), "threads": count, "torch": torch.__version__}


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
