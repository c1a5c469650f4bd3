"""The pictures of docs/transforms.md: one grid with a letter on it, warped by each family. Needs torch and Pillow.

python scripts/family_pictures.py
"""

import math
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch_stn as stn  # noqa: E402  (the checkout this script lies in)
from torch_stn.coordinates import base_grid  # noqa: E402

SIDE = 112
FOLDER = ROOT / "docs" / "images" / "transforms"


def bent_spline() -> tuple[stn.Transform, list[float]]:
    """Sixteen control points, moved along waves."""
    spline = stn.ThinPlateSpline()
    points = spline.control_points
    moved = points + 0.18 * torch.stack([torch.sin(3 * points[:, 1]), torch.sin(4 * points[:, 0])], dim=-1)
    return spline, moved.flatten().tolist()


def swirl(nodes: Tensor, strength: float) -> list[float]:
    """A vector at each node (..., 2), once around the middle and weaker outwards."""
    fade = torch.exp(-3 * nodes.square().sum(dim=-1, keepdim=True))
    return (strength * fade * torch.stack([-nodes[..., 1], nodes[..., 0]], dim=-1)).flatten().tolist()


def bump() -> list[float]:
    """One control point of 5 x 5 moved far, its neighbours not."""
    theta = torch.zeros(5, 5, 2)
    theta[2, 2] = 0.6
    return theta.flatten().tolist()


SPLINE, BENT = bent_spline()
FIELD = base_grid((16, 16))
FLOW = stn.CPAB((3, 3), zero_boundary=True)
# A family and one theta of it; the file is named after the row of docs/transforms.md.
PICTURES: dict[str, tuple[stn.Transform, list[float]]] = {
    "translation": (stn.Translation(), [0.25, -0.15]),
    "attention": (stn.Attention(), [0.6, 0.2, -0.1]),
    "rigid": (stn.Rigid(), [0.5, 0.0, 0.1]),
    "similarity": (stn.Similarity(), [0.5, 0.35, 0.0, 0.0]),
    "affine": (stn.Affine(), [1.1, 0.4, 0.0, -0.2, 0.9, 0.1]),
    "affine-bounded": (stn.BoundedAffine(), [0.3, 0.3, -0.3, 0.5, 0.0, 0.0]),
    "affine-exp": (stn.ExponentialAffine(), [0.3, 0.5, 0.0, -0.1, -0.2, 0.0]),
    "projective": (stn.Projective(), [1.0, 0.1, 0.0, 0.0, 1.1, 0.0, 0.1, 0.5]),
    "tps": (SPLINE, BENT),
    "ffd": (stn.FreeFormDeformation(), bump()),
    "displacement": (stn.DisplacementField((16, 16)), swirl(FIELD, 0.6)),
    "velocity": (stn.VelocityField((16, 16)), swirl(FIELD, 2.5)),
    "cpab": (FLOW, swirl(FLOW.vertices.float(), 3.0)),
    "polar": (stn.Polar(), [0.0, 0.0]),
    "log-polar": (stn.LogPolar(), [0.0, 0.0]),
    "sequence": (stn.Sequence(stn.Similarity(), SPLINE), [0.4, 0.2, 0.0, 0.0, *BENT]),
}


def grid_with_a_letter() -> Tensor:
    """White, grey lines every eighth, a black F off the middle: turns and flips can be told apart. (1, 1, S, S)."""
    side = 4 * SIDE
    line = (torch.arange(side) % (side // 8) - side // 16).abs() < side / 160
    picture = torch.where(line[:, None] | line, 0.65, 1.0)
    for top, bottom, left, right in ((2, 6, 2.7, 3.4), (2, 2.7, 2.7, 5.4), (3.6, 4.3, 2.7, 4.8)):
        rows, columns = (slice(int(a * side / 8), int(b * side / 8)) for a, b in ((top, bottom), (left, right)))
        picture[rows, columns] = 0.0
    return picture[None, None]


def main() -> None:
    """Write one small PNG per family, and the unwarped picture."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    original = grid_with_a_letter()
    pictures = {"identity": original}
    for name, (family, theta) in PICTURES.items():
        assert all(math.isfinite(number) for number in theta)
        pictures[name] = stn.warp(original, family(torch.tensor([theta])), fill=0.85)
    for name, picture in pictures.items():
        small = torch.nn.functional.avg_pool2d(picture, 4)[0, 0]
        levels = Image.fromarray((small * 255).round().clamp(0, 255).byte().numpy())
        levels.quantize(16).save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
