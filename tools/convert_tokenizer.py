"""Take encoder, quant_conv and codebook out of a VQGAN's training checkpoint, once, into a small safetensors file.

python tools/convert_tokenizer.py last.ckpt vqgan_imagenet_f16_1024.safetensors

No code of the checkpoint is run.
"""

import argparse
from pathlib import Path

import torch

from kd_plugins.extractors.tokenizer import load_tokenizer, save_tokenizer


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help=".ckpt, .pth or .safetensors with the published names")
    parser.add_argument("out", type=Path, help="the file to write, .safetensors")
    parser.add_argument("--half", action="store_true", help="store half precision: half the size, values to 3 digits")
    args = parser.parse_args(arguments)
    net = load_tokenizer(args.checkpoint)
    save_tokenizer(net, args.out, torch.float16 if args.half else torch.float32)
    parameters = sum(p.numel() for p in net.parameters())
    print(f"{args.out}: {parameters:,} parameters, {args.out.stat().st_size / 1e6:.1f} MB, {net.arguments}")


if __name__ == "__main__":
    main()
