"""Time a training step without a cache of the teacher, with one that fills, and with a full one; and say what a crop takes on disk.

python tools/benchmark_cache.py [-opt options/skd_derain.yml] [--crops 32] [--rounds 3] [--threads 1]
                                [--dtype float16] [--force_yml KEY=VALUE ...]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from kd_plugins.data import DegradedPhotoDataset
from kd_plugins.models import DistillationModel
from kd_plugins.process import prepare_process
from kd_plugins.run_options import parse_options
from kd_plugins.teachers.cache import TeacherCache
from kd_plugins.train import build_registered_model


def main() -> None:
    """Build the model once; time its steps on the same crops in turn, with and without a cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-opt", default="options/skd_derain.yml")
    parser.add_argument("--crops", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float16", choices=("float16", "float32"))
    parser.add_argument("--force_yml", nargs="+", default=[])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        opt, _ = parse_options(root, is_train=True, argv=["-opt", args.opt, "--force_yml", "manual_seed=0", *args.force_yml])
        prepare_process(opt)
        model = build_registered_model(opt)
        torch.set_num_threads(args.threads)
        block = opt["datasets"]["train"]
        dataset, size = DegradedPhotoDataset(**block), block["batch_size_per_gpu"]
        items = [dataset[index % len(dataset)] for index in range(args.crops // size * size)]
        batches = [
            {key: torch.stack([item[key] for item in items[start : start + size]]) for key in ("lq", "gt")}
            for start in range(0, len(items), size)
        ]
        times: dict[str, list[float]] = {"without a cache": [], "a cache that fills": [], "a full cache": []}
        for number in range(args.rounds + 1):
            cache = TeacherCache(f"{root}/{number}", dtype=args.dtype)
            for name, used in zip(times, (None, cache, cache), strict=True):
                seconds = time_steps(model, batches, used)
                if number:  # the first is a warm-up
                    times[name] += seconds
        files = [file.stat().st_size for file in Path(root, "1").rglob("*.*")]
    plain = statistics.median(times["without a cache"])
    height, width = batches[0]["lq"].shape[-2:]
    views = len(model.views)
    print(f"\nBatches of {size} crops of {height}x{width}, {views} view(s), {args.threads} thread(s), on {model.device}:\n")
    print("| step | median | of a step without |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {1e3 * statistics.median(seconds):.0f} ms | {statistics.median(seconds) / plain:.2f} |")
    print(f"\nOn disk: {sum(files) / len(items) / 1e6:.2f} MB a crop ({args.dtype}).")


def time_steps(model: DistillationModel, batches: list[dict[str, torch.Tensor]], cache: TeacherCache | None) -> list[float]:
    """Seconds of a step on each batch."""
    for teacher in dict.fromkeys(model.teachers.values()):
        teacher.cache = cache
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        model.feed_data(batch)
        model.optimize_parameters(1)
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
