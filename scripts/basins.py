"""How far gradient descent on a shift finds back, with each coordinate gradient: the table in docs/maths.md.

    python scripts/basins.py

Every digit, and a blob, is moved by a distance in four directions; Adam on the mean squared error looks for the shift,
starting from none. The number is the share of digits and directions that end within half a pixel.
"""

import torch
from torch import Tensor

from torch_stn import CoarseToFineGradient, CoordinateGradient, LinearizedGradient, sample
from torch_stn.coordinates import base_pixels
from torch_stn.lab.data.digits import load_digits

CANVAS, DIGITS, STEPS, RATE = 48, 5, 60, 0.4
DISTANCES = (2, 4, 6, 8, 12)
GRADIENTS: dict[str, str | CoordinateGradient] = {
    "exact": "exact",
    "linearized, radius 1": LinearizedGradient(8, 1.0),
    "linearized, radius 4": LinearizedGradient(8, 4.0),
    "linearized, radius 8": LinearizedGradient(12, 8.0),
    "coarse-to-fine, sigma 2": CoarseToFineGradient(2.0),
    "coarse-to-fine, sigma 4": CoarseToFineGradient(4.0),
    "coarse-to-fine, sigma 8": CoarseToFineGradient(8.0),
}


def found(pictures: Tensor, distance: float, gradient: str | CoordinateGradient) -> float:
    """The share of the pictures (N, 1, CANVAS, CANVAS) and of four directions that are found back."""
    angles = torch.arange(4) * torch.pi / 2 + 0.3
    away = distance * torch.stack([angles.cos(), angles.sin()], dim=-1).repeat(len(pictures), 1)
    images = pictures.repeat_interleave(4, dim=0)
    size = (CANVAS, CANVAS)
    base = base_pixels(size, size, align_corners=False, like=away)[None]
    target = sample(images, base + away[:, None, None], units="pixel")
    shift = torch.zeros_like(away).requires_grad_()
    optimizer = torch.optim.Adam([shift], lr=RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        moved = sample(images, base + shift[:, None, None], units="pixel", coordinate_gradient=gradient)
        torch.autograd.backward((moved - target).square().sum())
        optimizer.step()
    return float(((shift.detach() - away).norm(dim=-1) < 0.5).float().mean())


def main() -> None:
    """Print one table for the digits and one for a blob of 2 pixels."""
    test = torch.from_numpy(load_digits("embedded").test_images[:DIGITS])
    digits = torch.zeros(DIGITS, 1, CANVAS, CANVAS)
    digits[..., 10:38, 10:38] = test.reshape(DIGITS, 1, 28, 28).float() / 255
    reach = torch.arange(CANVAS) - CANVAS / 2
    line = torch.exp(-reach.square() / (2 * 2.0**2))
    for name, pictures in (("digits", digits), ("blob", (line[:, None] * line)[None, None])):
        print(f"| {name}, pixels off | " + " | ".join(map(str, DISTANCES)) + " |")
        print("|---|" + "---|" * len(DISTANCES))
        for word, gradient in GRADIENTS.items():
            shares = [found(pictures, float(distance), gradient) for distance in DISTANCES]
            print(f"| {word} | " + " | ".join(f"{100 * share:.0f} %" for share in shares) + " |", flush=True)


if __name__ == "__main__":
    main()
