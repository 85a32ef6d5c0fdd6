"""Train a VQ tokenizer on photos: the feature space of DCKD's losses, for those who want their own.

python tools/train_tokenizer.py --photos FOLDER --out my_tokenizer.safetensors

Photos are cut into random squares; the encoder's output is replaced by the nearest codes, a decoder makes the image again, and only
the encoder and the codes are kept. At the end the script prints the numbers for the card. In an option file:
`extractor: {type: TokenizerExtractor, weights: my_tokenizer.safetensors}`.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kd_plugins.data import find_photos
from kd_plugins.extractors.tokenizer import load_tokenizer, save_tokenizer
from kd_plugins.extractors.vq_decoder import VQDecoder
from kd_plugins.extractors.vq_encoder import VQTokenizer


class Crops:
    """Random squares of photos, flipped and turned, as batches in [-1, 1]."""

    def __init__(self, photos: list[np.ndarray], crop: int, seed: int) -> None:
        self.photos, self.crop = photos, crop
        self.rng = np.random.default_rng(seed)
        sides = np.array([photo.shape[:2] for photo in photos], dtype=np.float64)
        self.share = sides.prod(1) / sides.prod(1).sum()  # every pixel is as likely as any other

    def batch(self, size: int) -> Tensor:
        return torch.stack([self._one() for _ in range(size)]).contiguous(memory_format=torch.channels_last)

    def _one(self) -> Tensor:
        photo = self.photos[self.rng.choice(len(self.photos), p=self.share)]
        top, left = (self.rng.integers(side - self.crop + 1) for side in photo.shape[:2])
        square = np.rot90(photo[top : top + self.crop, left : left + self.crop], int(self.rng.integers(4)))
        square = square[:, ::-1] if self.rng.random() < 0.5 else square
        return torch.from_numpy(square.transpose(2, 0, 1).astype(np.float32)) / 127.5 - 1


def nearest_codes(z: Tensor, codes: Tensor) -> Tensor:
    """The index of the nearest code (K, D) for each z (M, D)."""
    return (codes.square().sum(1) - 2 * z @ codes.t()).argmin(1)


class Codebook:
    """Codes that follow the moving average of what is assigned to them; those that nothing is assigned to start anew."""

    def __init__(self, z: Tensor, count: int, decay: float, rng: torch.Generator) -> None:
        self.decay, self.rng = decay, rng
        self.codes = self._pick(z, count)
        for _ in range(10):  # k-means
            self.used, self.sums = self._assigned(z, nearest_codes(z, self.codes))
            self.codes = torch.where(self.used[:, None] > 0, self.sums / self.used.clamp_min(1)[:, None], self._pick(z, count))
        self.used = torch.full((count,), len(z) / count)
        self.sums = self.codes * self.used[:, None]

    def _pick(self, z: Tensor, count: int) -> Tensor:
        chosen = z[torch.randint(len(z), (count,), generator=self.rng)]
        return chosen + 1e-3 * z.std() * torch.randn(chosen.shape, generator=self.rng)

    def _assigned(self, z: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        count, dim = self.codes.shape
        return torch.bincount(index, minlength=count).float(), torch.zeros(count, dim).index_add_(0, index, z)

    def update(self, z: Tensor, index: Tensor, restart: bool) -> None:
        used, sums = self._assigned(z, index)
        self.used.lerp_(used, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        if restart:
            share = len(z) / len(self.codes)
            dead = self.used < 0.1 * share
            self.sums = torch.where(dead[:, None], self._pick(z, len(dead)) * share, self.sums)
            self.used = torch.where(dead, torch.full_like(self.used, share), self.used)
        self.codes = self.sums / self.used.clamp_min(1e-8)[:, None]


def flat(z: Tensor) -> Tensor:
    """(N, D, h, w) -> (N h w, D)."""
    return z.permute(0, 2, 3, 1).flatten(0, 2)


def reconstruction_loss(output: Tensor, target: Tensor, edges: float) -> Tensor:
    """L1, plus `edges` times the L1 of the differences between neighbours."""
    difference = output - target
    slopes = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    return difference.abs().mean() + edges * slopes


def rate(progress: float, peak: float) -> float:
    """The learning rate: up within 3 % of the run, then a cosine down to a hundredth."""
    return peak * min(1.0, progress / 0.03 + 0.05) * (0.01 + 0.99 * (1 + math.cos(math.pi * min(progress, 1.0))) / 2)


def train(net: VQTokenizer, decoder: VQDecoder, crops: Crops, args: argparse.Namespace) -> tuple[int, float]:
    """Train in place; the codes end in `net.quantize`. Returns steps and minutes of processor time."""
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = [*net.encoder.parameters(), *net.quant_conv.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    book: Codebook | None = None
    rng = torch.Generator().manual_seed(args.seed)
    recent: list[Tensor] = []
    start, computed, step, progress = time.monotonic(), time.process_time(), 0, 0.0
    seen = commitment = torch.zeros(())
    while progress < 1:
        x = crops.batch(args.batch)
        z = net(x)[1]
        quantised, tokens = z, flat(z)
        if book is None:  # at first without codes: they would hold the encoder to the little that it has learnt by then
            recent = [*recent, tokens.detach()][-16:]
            if progress >= args.without_codes:
                book = Codebook(torch.cat(recent), args.codes, args.decay, rng)
        else:
            index = nearest_codes(tokens.detach(), book.codes)
            codes = book.codes[index]
            commitment = F.mse_loss(tokens, codes)
            quantised = z + (codes.unflatten(0, (len(x), *z.shape[2:])).permute(0, 3, 1, 2) - z).detach()
            book.update(tokens.detach(), index, restart=step % 10 == 0 and progress < 0.8)
        seen = reconstruction_loss(decoder(quantised), x, args.edges)
        optimizer.zero_grad()
        (seen + args.commitment * commitment).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate(progress, args.lr)
        optimizer.step()
        step += 1
        minutes = (time.monotonic() - start) / 60
        progress = max(step / args.steps, minutes / args.minutes if args.minutes else 0)
        if step % args.print_freq == 0 or progress >= 1:
            usage = "" if book is None else f"  codes in use {perplexity(book.used):.0f}"
            print(
                f"step {step}  {minutes:.1f} min  loss {seen.item():.4f}  commitment {commitment.item():.4f}"
                f"  z {z.std().item():.3f}{usage}",
                flush=True,
            )
    if book is None:
        raise ValueError(f"--steps {args.steps} ended before there was a codebook")
    net.quantize.embedding.weight.data.copy_(book.codes)
    return step, (time.process_time() - computed) / 60


def perplexity(counts: Tensor) -> float:
    """exp of the entropy of a histogram: how many codes, used equally often, would be as varied."""
    share = counts / counts.sum()
    return math.exp(-torch.xlogy(share, share).sum().item())


@torch.no_grad()
def soft_codes(z: Tensor, codes: Tensor) -> float:
    """exp of the mean entropy of softmax(-|z - code|²): between how many codes the soft assignment of one z is divided."""
    p = torch.softmax(2 * z @ codes.t() - codes.square().sum(1), 1)
    return math.exp(-torch.xlogy(p, p).sum(1).mean().item())


@torch.no_grad()
def scale_codes(net: VQTokenizer, z: Tensor, target: float) -> float:
    """Multiply z and the codes by one number so that `soft_codes` is the target; which code is nearest stays the same."""
    codes = net.quantize.embedding.weight
    low, high = 1e-3, 1e3
    for _ in range(40):
        scale = math.sqrt(low * high)
        low, high = (scale, high) if soft_codes(z * scale, codes * scale) > target else (low, scale)
    for tensor in (net.quant_conv.weight, net.quant_conv.bias, codes):
        if tensor is not None:
            tensor.mul_(scale)
    return scale


@torch.no_grad()
def card(path: Path, decoder: VQDecoder, scale: float, photos: list[np.ndarray]) -> list[str]:
    """The numbers of the saved file on photos it was not trained on, as rows of a Markdown table."""
    net = load_tokenizer(path)
    codes, stride = net.quantize.embedding.weight, net.stride
    scores, counts, shares = [], torch.zeros(len(codes)), []
    for photo in photos:
        height, width = (side // stride * stride for side in photo.shape[:2])
        x = torch.from_numpy(np.ascontiguousarray(photo[:height, :width])).permute(2, 0, 1)[None].float()
        z = net(x / 127.5 - 1)[1]
        index = nearest_codes(flat(z), codes)
        counts += torch.bincount(index, minlength=len(codes))
        shares.append(soft_codes(flat(z), codes))
        quantised = (codes[index] / scale).unflatten(0, (1, *z.shape[2:])).permute(0, 3, 1, 2)
        output = ((decoder(quantised) + 1) * 127.5).clamp(0, 255).round()
        scores.append(10 * math.log10(255**2 / max((output - x).square().mean().item(), 1e-10)))
    return [
        f"| parameters | {sum(p.numel() for p in net.parameters()):,} |",
        f"| file | safetensors, half precision, {path.stat().st_size / 1e6:.2f} MB |",
        f"| reconstruction | {np.mean(scores):.2f} dB PSNR (RGB), mean of {len(photos)} photos |",
        f"| codes | {len(codes)}, {int((counts > 0).sum())} of them in use, perplexity {perplexity(counts):.0f} |",
        f"| soft assignment | one position is divided between {np.mean(shares):.1f} codes |",
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", nargs="+", default=["builtin"], help="folders or files, or builtin (scikit-image's photos)")
    parser.add_argument("--validation", nargs="+", default=["builtin"], help="photos for the card, not trained on")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, .safetensors")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, help="anneal within this time where it is shorter than the steps")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128, help="side of the squares in pixels")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--edges", type=float, default=0.5, help="weight of the L1 between neighbours' differences")
    parser.add_argument("--commitment", type=float, default=0.25, help="weight of the distance between z and its code")
    parser.add_argument("--without_codes", type=float, default=0.25, help="share of the run before the codes come in")
    parser.add_argument("--decay", type=float, default=0.98, help="of the codes' moving average")
    parser.add_argument("--soft_codes", type=float, default=8, help="scale z so that the soft assignment takes so many codes")
    parser.add_argument("--ch", type=int, default=16, help="width of the first level")
    parser.add_argument("--ch_mult", type=int, nargs="+", default=[1, 1, 2, 4, 8], help="width of each level, over ch")
    parser.add_argument("--blocks", type=int, default=1, help="residual blocks in each level")
    parser.add_argument("--groups", type=int, default=4, help="of the group normalisations")
    parser.add_argument("--codes", type=int, default=512)
    parser.add_argument("--dim", type=int, default=64, help="length of a code")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--print_freq", type=int, default=50)
    args = parser.parse_args(arguments)

    levels = len(args.ch_mult)
    if levels < 3 or args.crop % 2 ** (levels - 1):
        parser.error(f"--crop {args.crop} with {levels} levels: expected 3 levels or more, and a multiple of {2 ** (levels - 1)}")
    if args.out.suffix != ".safetensors" or not args.out.parent.is_dir():
        parser.error(f"--out {args.out}: expected a .safetensors file in a folder that exists")
    torch.manual_seed(args.seed)
    photos, validation = read_photos(args.photos, "train", args.crop), read_photos(args.validation, "val", 2 ** (levels - 1))
    net = VQTokenizer(args.ch, args.ch_mult, args.blocks, (levels - 1,), args.dim, args.dim, args.codes, args.groups)
    decoder = VQDecoder(args.dim, args.ch * args.ch_mult[-1], levels - 1, args.groups)
    crops = Crops(photos, args.crop, args.seed)
    steps, minutes = train(net, decoder, crops, args)

    with torch.no_grad():
        scale = scale_codes(net, flat(net(crops.batch(4 * args.batch))[1]), args.soft_codes)
    save_tokenizer(net, args.out)
    size = f"{steps} steps of batch {args.batch} x {args.crop}², {minutes:.0f} minutes of processor time"
    rows = [f"| trained on | {len(photos)} photos, {size} |"]
    print(*rows, *card(args.out, decoder, scale, validation), sep="\n")


def read_photos(source: list[str], split: str, least: int) -> list[np.ndarray]:
    """Decode photos, and say which is too small."""
    found = find_photos("builtin" if source == ["builtin"] else source, split)
    photos = [photo.load() for photo in found]
    for photo, pixels in zip(found, photos, strict=True):
        if min(pixels.shape[:2]) < least:
            raise ValueError(f"photo {photo.path!r} is {pixels.shape[1]}x{pixels.shape[0]}; expected {least} or more on each side")
    return photos


if __name__ == "__main__":
    main()
