"""Pack a trained network as a bundled teacher: half-precision safetensors that describe their own architecture.

python tools/bundle_teacher.py OPTION_FILE CHECKPOINT NAME
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from kd_plugins.options import read_options
from kd_plugins.teachers import build_teacher
from kd_plugins.teachers.checkpoint import BUNDLED, read_checkpoint


def main() -> None:
    """Pack, read back, and say how far half precision moved the output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("option_file", help="the option file it was trained with (its network_g)")
    parser.add_argument("checkpoint", type=Path, help="net_g_*.pth")
    parser.add_argument("name", help="kd_plugins/weights/NAME.safetensors")
    args = parser.parse_args()

    network = read_options(args.option_file)["network_g"]
    weights, _ = read_checkpoint(args.checkpoint)
    target = BUNDLED / f"{args.name}.safetensors"
    half = {key: value.half().contiguous() for key, value in weights.items()}
    save_file(half, target, metadata={"network": json.dumps(network)})

    exact = build_teacher({**network, "checkpoint": str(args.checkpoint)})
    packed = build_teacher({"checkpoint": args.name})
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    difference = (exact(x).image - packed(x).image).abs().max().item()
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, largest change of an output {difference:.1e} (of 1)")


if __name__ == "__main__":
    main()
