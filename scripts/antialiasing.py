"""Quality and cost of ways to antialias a warp, and the picture in docs/antialiasing.md.

python scripts/antialiasing.py quality             # minutes: 64 x 64 samples a pixel are the truth
python scripts/antialiasing.py cost                # wants the machine to itself
python scripts/antialiasing.py picture docs/images/antialiasing.png
"""

import math
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_stn import Affine, Projective, sample, warp
from torch_stn.coordinates import to_pixel
from torch_stn.sampling.antialias import columns
from torch_stn.transforms.maps import Map

Size = tuple[int, int]
Way = Callable[[Tensor, Map, Size], Tensor]


def zone_plate(n: int) -> Tensor:
    """cos(radius^2) in [0, 1], half a cycle per pixel at the middle of each border: (1, 1, n, n)."""
    x = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    return (0.5 + 0.5 * torch.cos(math.pi * (x**2 + x[:, None] ** 2) / n))[None, None]


def truth(image: Tensor, map: Map, size: Size, count: int = 64) -> Tensor:
    """The mean of count x count bilinear samples in each output pixel, by F.grid_sample."""
    inner = (torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5
    y, x = (((2 * (torch.arange(m)[:, None] + inner) + 1) / m - 1) for m in size)
    total = torch.zeros(1, 1, *size, dtype=torch.float64)
    for line in y.unbind(dim=1):
        xy = torch.stack(torch.meshgrid(line, x.flatten(), indexing="ij")[::-1], dim=-1)[None]
        total += F.grid_sample(image, map.sources(xy), align_corners=False).unflatten(-1, (-1, count)).mean(dim=-1)
    return total / count


def supersampled(count: int) -> Way:
    """count x count bilinear samples of the image in each output pixel."""
    return lambda image, map, size: F.avg_pool2d(warp(image, map, (size[0] * count, size[1] * count)), count)


def trilinear(image: Tensor, map: Map, size: Size) -> Tensor:
    """One sample on each of the two mip levels next to the length of the footprint's longer side."""
    spanned = columns(to_pixel(map.grid(size).to(image.dtype), image.shape[2:]))
    level = spanned.square().sum(dim=-1).amax(dim=-1).sqrt().log2().clamp(min=0)
    total, mip = torch.zeros(()), image
    for number in range(math.ceil(float(level.max())) + 1):
        mip = F.avg_pool2d(mip, 2) if number else image
        weight = (1 - (level - number).abs()).clamp(min=0)[:, None]
        if weight.any():
            total = total + weight * warp(mip, map, size)
    return total


def elliptical(sigma: float, count: int) -> Way:
    """EWA: a Gaussian in the output's plane, so an ellipse in the image, of ``count`` samples a pixel and axis."""

    def way(image: Tensor, map: Map, size: Size) -> Tensor:
        points = to_pixel(map.grid(size).to(image.dtype), image.shape[2:])
        spanned, reach = columns(points), math.ceil(3 * sigma * count)
        total, whole = torch.zeros(()), 0.0
        for u in range(-reach, reach + 1):
            for v in range(-reach, reach + 1):
                weight = math.exp(-((u / count) ** 2 + (v / count) ** 2) / (2 * sigma**2))
                at = points + (u * spanned[..., 0, :] + v * spanned[..., 1, :]) / count
                total, whole = total + weight * sample(image, at, units="pixel"), whole + weight
        return total / whole

    return way


def turned(angle: float, wide: float = 1.0, high: float = 1.0) -> Map:
    """The affine map that turns, after the output was stretched."""
    c, s = math.cos(angle), math.sin(angle)
    return Affine()(torch.tensor([[c * wide, -s * high, 0, s * wide, c * high, 0]], dtype=torch.float64))


def plane(*theta: float) -> Map:
    """A homography."""
    return Projective()(torch.tensor([theta], dtype=torch.float64))


# The map and the pixels of the image per pixel of the output, (down, across).
LINES: dict[str, tuple[Map, tuple[float, float]]] = {
    "1/2": (turned(0), (2, 2)),
    "1/3.3": (turned(0), (3.3, 3.3)),
    "1/4": (turned(0), (4, 4)),
    "1/8": (turned(0), (8, 8)),
    "1/16": (turned(0), (16, 16)),
    "1/2, 0.5 rad": (turned(0.5), (2, 2)),
    "1/3.3, 0.5 rad": (turned(0.5), (3.3, 3.3)),
    "1/8, 0.5 rad": (turned(0.5), (8, 8)),
    "1/8 x 1/1.5": (turned(0), (1.5, 8)),
    "1/8 x 1/1.5, 0.5 rad": (turned(0.5), (1.5, 8)),
    "receding plane": (plane(1, 0, 0, 0, 1, 0, 0, 0.8), (2, 2)),
}
WAYS: dict[str, Way] = {
    "bilinear": warp,
    "trilinear mips": trilinear,
    "2 x 2 samples": supersampled(2),
    "3 x 3 samples": supersampled(3),
    "8 x 8 samples": supersampled(8),
    "EWA, sigma 0.29": elliptical(0.29, 8),
    "EWA, sigma 0.5": elliptical(0.5, 8),
    "antialias=True": lambda image, map, size: warp(image, map, size, antialias=True),
}


def quality(n: int = 256) -> None:
    """PSNR in dB of every way on every line."""
    image = zone_plate(n)
    print("|", " | ".join(["", *WAYS]), "|")
    print("|---" * (len(WAYS) + 1) + "|")
    for name, (map, scale) in LINES.items():
        size = (round(n / scale[0]), round(n / scale[1]))
        exact = truth(image, map, size)
        errors = [float((way(image.float(), map, size) - exact).square().mean()) for way in WAYS.values()]
        print("|", name, "|", " | ".join(f"{-10 * math.log10(error):.1f}" for error in errors), "|", flush=True)


COST = (((1, 1, 512, 512), 8), ((1, 3, 1024, 1024), 8), ((8, 3, 512, 512), 8), ((1, 3, 512, 512), 1))


def cost(repeats: str = "40") -> None:
    """ms, in turns, forward without a graph and then forward + backward to image and theta.

    First deciles, as other work may share the machine. In brackets the multiples of
    `F.grid_sample(x, F.affine_grid(theta))`, as users write it, and of plain `warp`.
    """
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for backward in (False, True):
        names = ["F.grid_sample", *(name for name in WAYS if "EWA" not in name), "image.sum()"]
        names = [name for name in names if not (backward and name in ("trilinear mips", "8 x 8 samples"))]
        print("forward + backward" if backward else "forward")
        print("|", " | ".join(["image -> output", *names]), "|")
        print("|---" * (len(names) + 1) + "|")
        for shape, shrunk in COST:
            found = _quick(names, shape, shrunk, int(repeats), backward=backward)
            plain, ours = found["F.grid_sample"], found["bilinear"]
            cells = [f"{ms:.2f} ({ms / plain:.1f}x, {ms / ours:.1f}x)" for ms in found.values()]
            print("|", *shape, "->", shape[2] // shrunk, "|", " | ".join(cells), "|", flush=True)


def _quick(names: list[str], shape: tuple[int, ...], shrunk: int, repeats: int, *, backward: bool) -> dict[str, float]:
    """ms of each way, the quickest tenth, all of them in turns on one image."""
    torch.manual_seed(0)
    image = torch.rand(shape, requires_grad=backward)
    size = (shape[2] // shrunk, shape[3] // shrunk)
    theta = (torch.eye(2, 3).expand(shape[0], 2, 3) * (8 / shrunk)).clone().requires_grad_(backward)

    def plain() -> Tensor:
        grid = F.affine_grid(theta, [len(theta), image.shape[1], *size], align_corners=False)
        return F.grid_sample(image, grid, align_corners=False)

    family = Affine()
    others: dict[str, Callable[[], Tensor]] = {"F.grid_sample": plain, "image.sum()": lambda: image.sum()}
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats + 3):
        for name in names:
            start = time.perf_counter()
            with torch.set_grad_enabled(backward):
                values = others[name]() if name in others else WAYS[name](image, family(theta), size)
                if backward:
                    torch.autograd.grad(values.sum(), (image, theta), allow_unused=True)
            if turn >= 3:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.quantiles(values, n=10)[0] for name, values in times.items()}


def picture(path: str, n: int = 512) -> None:
    """A zone plate at 1/4, and seen as a receding plane: bilinear, antialiased, truth, side by side."""
    from PIL import Image

    image, lines = zone_plate(n), []
    for map, m in ((turned(0.5), n // 4), (plane(1.6, 0, 0, 0, 1.3, 0.3, 0, -0.7), n // 4)):
        shown = [warp(image, map, (m, m)), warp(image, map, (m, m), antialias=True), truth(image, map, (m, m), 16)]
        lines.append(torch.cat([F.pad(values, [4, 4, 4, 4], value=1.0) for values in shown], dim=-1))
    pixels = (torch.cat(lines, dim=-2)[0, 0].clamp(0, 1) * 255).round().byte()
    Image.fromarray(pixels.numpy()).save(path, optimize=True)


if __name__ == "__main__":
    command, *rest = sys.argv[1:] or ["quality"]
    with torch.no_grad():
        {"quality": quality, "cost": cost, "picture": picture}[command](*rest)  # type: ignore[operator]
