"""World coordinates against scipy.ndimage, which works on voxels, and against hand-made scenes."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from cases import draw, inner_points, thetas
from map_contract import close
from torch import Tensor

from torch_stn import Affine, Projective, Rigid, ThinPlateSpline, in_world, lowered, warp
from torch_stn.transforms import from_world, to_world

CORNERS = pytest.mark.parametrize("align_corners", [False, True])


def oblique(spacing: list[float], turn: list[float], origin: list[float]) -> Tensor:
    """A NIfTI-like matrix: spacings, an orientation that is along no axis, an origin."""
    dims = len(spacing)
    matrix = torch.eye(dims + 1, dtype=torch.float64)
    matrix[:dims] = Rigid(dims)(torch.tensor([[*turn, *origin]], dtype=torch.float64)).matrix[0]  # type: ignore[attr-defined]
    matrix[:dims, :dims] *= torch.tensor(spacing, dtype=torch.float64)
    return matrix


def by_scipy(image: Tensor, matrix: Tensor, size: tuple[int, ...]) -> Tensor:
    """One image (*in) read by an output pixel -> input pixel matrix in (x, y[, z]); scipy counts (z, y, x)."""
    d = image.dim()
    linear, offset = matrix[:d, :d].flip(0, 1).numpy(), matrix[:d, d].flip(0).numpy()
    # "grid-constant": taps beyond the image are 0, as under zeros padding.
    read = scipy.ndimage.affine_transform(image.numpy(), linear, offset, size, order=1, mode="grid-constant")
    return torch.from_numpy(np.asarray(read))


@CORNERS
@pytest.mark.parametrize("dims", [2, 3])
def test_resampling_against_scipy(dims: int, align_corners: bool) -> None:
    in_size, size = ((9, 13), (12, 7)) if dims == 2 else ((9, 13, 11), (8, 7, 12))
    turns = [[0.4], [-0.3]] if dims == 2 else [[0.4, -0.2, 0.5], [0.1, 0.3, -0.2]]
    read = oblique([0.9, 1.2, 3.0][:dims], turns[0], [-3.0, 4.0, -10.0][:dims])
    written = oblique([1.1, 1.4, 2.5][:dims], turns[1], [0.0] * dims)
    centres = [(torch.tensor(n[::-1], dtype=torch.float64) - 1)[None] / 2 for n in (in_size, size)]
    written[:dims, dims] += (to_world(centres[0], read) - to_world(centres[1], written))[0]  # about the same place
    image = draw(1, 1, *in_size)
    move = Rigid(dims)(torch.tensor([[*turns[1], *[0.7, -1.5, 2.0][:dims]]], dtype=torch.float64))  # millimetres
    for map, world in ((None, torch.eye(dims + 1, dtype=torch.float64)), (move, move.homogeneous()[0])):  # type: ignore[attr-defined]
        wanted = by_scipy(image[0, 0], torch.linalg.inv(read) @ world @ written, size)
        assert (wanted != 0).double().mean() > 0.3
        ours = in_world(map, in_size, size, in_affine=read, out_affine=written, align_corners=align_corners)
        assert isinstance(ours.lower(size), lowered.Matrix)
        close(warp(image, ours, size, align_corners=align_corners)[0, 0], wanted, 1e-10)


@CORNERS
def test_the_same_grid_is_exactly_the_identity(align_corners: bool) -> None:
    for dims, size in ((2, (7, 9)), (3, (5, 6, 7)), (2, (1, 6))):
        affine = oblique([0.9, 1.2, 3.0][:dims], [0.4] if dims == 2 else [0.4, -0.2, 0.5], [-3.0, 4.0, 9.0][:dims])
        for dtype in (torch.float32, torch.float64):
            still = Rigid(dims)(Rigid(dims).identity()[None].to(dtype))
            for map in (None, still):
                ours = in_world(map, size, size, in_affine=affine, out_affine=affine, align_corners=align_corners)
                assert torch.equal(ours.displacement(draw(1, 4, dims)), torch.zeros(1, 4, dims, dtype=torch.float64))
                assert ours.dtype == (torch.float64 if map is None else dtype)


@CORNERS
def test_every_kind_of_map_goes_by_the_world(align_corners: bool) -> None:
    in_size, size = (9, 13), (12, 7)
    read = oblique([0.1, 0.2], [0.4], [0.3, -0.1])
    written = torch.stack([oblique([0.1, 0.15], [-0.2], [-0.4, 0.2]), torch.eye(3, dtype=torch.float64) / 10])
    written[1, 2, 2] = 1
    xy = inner_points(2, 20, 2)
    options: dict[str, Any] = {"units": "normalized", "align_corners": align_corners}
    for family in (Affine(), Projective(), ThinPlateSpline(3)):
        map = family(thetas(family))
        ours = in_world(map, in_size, size, in_affine=read, out_affine=written, align_corners=align_corners)
        world = map.sources(to_world(xy, written, in_size=size, **options))
        close(ours.sources(xy), from_world(world, read, in_size=in_size, **options), 1e-11)
        close(ours.points(ours.sources(xy)), xy, 1e-9)
        assert in_world(family(thetas(family).float()), in_size, size, out_affine=written).dtype == torch.float32


def test_a_point_of_the_world_is_found_where_its_picture_is() -> None:
    """One bright voxel, read on another grid: its centre of mass is where the affines say."""
    read = oblique([1.0, 1.5, 2.0], [0.2, -0.1, 0.3], [5.0, -4.0, 3.0])
    written = oblique([0.4, 0.4, 0.4], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    image = torch.zeros(1, 1, 9, 9, 9, dtype=torch.float64)
    image[0, 0, 4, 5, 3] = 1  # (x, y, z) = (3, 5, 4)
    at = to_world(torch.tensor([[3.0, 5.0, 4.0]], dtype=torch.float64), read)
    size = (40, 40, 40)
    written[:3, 3] = at[0] - 0.4 * 19.3  # so that it lies well inside
    values = warp(image, in_world(None, (9, 9, 9), size, in_affine=read, out_affine=written), size)[0, 0]
    pixels = torch.stack(torch.meshgrid(*[torch.arange(40.0).double()] * 3, indexing="ij")[::-1], dim=-1)
    centre = (pixels * values[..., None]).sum(dim=(0, 1, 2)) / values.sum()
    close(centre[None], from_world(at, written), 0.01)


def test_a_transposed_array_takes_the_columns_in_turn() -> None:
    """The two ways of the module's text to bring a NIfTI array are one picture."""
    array, affine = draw(5, 6, 7), oblique([1.0, 1.5, 2.0], [0.2, -0.1, 0.3], [5.0, -4.0, 3.0])
    out = oblique([1.2, 1.2, 1.2], [0.0, 0.1, 0.0], [5.0, -4.0, 3.0])
    transposed = warp(
        array.permute(2, 1, 0)[None, None],
        in_world(None, (7, 6, 5), (4, 4, 4), in_affine=affine, out_affine=out),
        (4, 4, 4),
    )
    as_it_is = warp(
        array[None, None],
        in_world(None, (5, 6, 7), (4, 4, 4), in_affine=affine[:, [2, 1, 0, 3]], out_affine=out),
        (4, 4, 4),
    )
    assert transposed.any()
    close(as_it_is, transposed)


def test_gradients_reach_theta_and_the_affines() -> None:
    affine = oblique([1.0, 1.5], [0.2], [0.5, -0.4]).requires_grad_()
    theta = thetas(Rigid(), 1).requires_grad_()
    map = in_world(Rigid()(theta), (6, 6), (6, 6), in_affine=affine, out_affine=torch.eye(3))
    warp(draw(1, 1, 6, 6), map, (6, 6)).square().sum().backward()
    for variable in (affine, theta):
        assert variable.grad is not None
        assert variable.grad.any()


NAN = [[math.nan, 0, 0], [0, 1, 0], [0, 0, 1]]
MAP = Rigid()(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"map": Rigid()}, TypeError, "^map: wanted a Map, or None for the identity, got Rigid"),
        ({"in_size": (4, 4, 4)}, ValueError, r"^size: wanted \(h, w\), got \(4, 4, 4\)"),
        ({"in_affine": torch.eye(4)}, ValueError, r"^in_affine: wanted \(3, 3\) or \(N, 3, 3\), got \(4, 4\)"),
        ({"out_affine": torch.zeros(3, 3)}, ValueError, r"^out_affine: wanted finite .* last row \(0, 0, 1\)"),
        ({"in_affine": NAN}, ValueError, "^in_affine: wanted finite matrices"),
        ({"in_affine": [[1, 2, 0], [2, 4, 0], [0, 0, 1]]}, ValueError, "^in_affine: wanted .* can be inverted"),
        ({"in_affine": [[0, 0, 0], [0, 4, 0], [0, 0, 1]]}, ValueError, "^in_affine: wanted .* can be inverted"),
        ({"in_affine": torch.eye(3).expand(3, 3, 3)}, ValueError, "^map: wanted the batch size of in_affine, 3"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"map": MAP, "in_size": (4, 4), "size": (4, 4), **change}
    with pytest.raises(error, match=message):
        in_world(**arguments)


def test_small_spacings_are_no_singular_matrix() -> None:
    microscope = torch.diag(torch.tensor([1e-6, 1e-6, 1e-6, 1.0], dtype=torch.float64))
    map = in_world(None, (4, 4, 4), (4, 4, 4), in_affine=microscope, out_affine=microscope)
    assert torch.equal(map.matrix, torch.eye(3, 4, dtype=torch.float64)[None])  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"^size: wanted \(h, w\) of whole numbers, got None"):
        to_world(torch.zeros(1, 2), torch.eye(3), units="normalized")
