"""Label maps: which label is at a point, by the nearest pixel or by a vote of the pixels around, and how sure that is.

A vote needs no one-hot images: a point reads no more labels than it has taps, four or eight, whether the map has 2 or
2,000 of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.coordinates import as_list, in_units
from torch_stn.sampling.interpolation import Interpolation, as_interpolation
from torch_stn.sampling.prefilter import responses
from torch_stn.sampling.problem import Problem, problem_of
from torch_stn.sampling.read import finite, read_batches
from torch_stn.sampling.sample import sample
from torch_stn.sampling.taps import axes_of, taps

CHUNK = 2**17  # points that vote at a time: their labels and weights stay in the cache, whatever the volume


def sample_labels(
    labels: Tensor,  # (N, *in) or (N, C, *in), whole numbers or bools
    points: Tensor,  # (N, *S, d), last axis (x[, y[, z]])
    *,
    soft: bool = False,
    mode: str | Interpolation = "bilinear",
    padding_mode: str | Sequence[str] = "zeros",
    fill: int = 0,
    align_corners: bool = False,
    units: str = "normalized",
) -> Tensor:
    """Read a label map: the label of the nearest pixel, or with ``soft`` the one that most of the kernel falls on.

    ``soft`` is what interpolating the indicator image of each label and taking the largest would give, argmax_l
    sum_nm [U_nm = l] k(x - m) k(y - n): borders stay smooth under rotations and zooms. Of equals the lower label wins.

    Convention: labels are any numbers, negative or beyond 2^53, and are never rounded; channels are read independently.
    The last axis of ``points`` says whether an axis is a channel. A point with a NaN or infinite coordinate reads
    ``fill``.

    Args:
        mode: the kernel that votes, for ``soft``; none with a prefilter.
        fill: the label outside under "zeros".
        The others as :func:`torch_stn.sample`.
    Returns: (N, *S) or (N, C, *S), in the labels' dtype.
    Gradients: none; :func:`label_probabilities` has some.
    Raises: TypeError / ValueError naming the argument, what came and what was wanted.
    Source: Avants et al., the GenericLabel interpolation of ANTs.

    Example:
        >>> labels = torch.tensor([[[7, 7], [7, 900]]])
        >>> point = torch.tensor([[[0.6, 0.6]]])
        >>> sample_labels(labels, point, units="pixel").tolist()
        [[900]]
        >>> sample_labels(labels, point, units="pixel", soft=True).tolist()
        [[7]]
    """
    image, dims = _label_image(labels, points)
    if not soft:
        read = sample(
            image,
            points,
            mode="nearest",
            padding_mode=padding_mode,
            fill=fill,
            align_corners=align_corners,
            units=units,
        )
        return read if labels.dim() == dims + 2 else read[:, 0]
    if labels.dtype in (torch.uint16, torch.uint32, torch.uint64):  # which torch cannot compare
        image, fill = image.long(), int(_checks.fill(fill, labels.dtype))
        fill -= 2**64 if fill >= 2**63 else 0  # as long() does to the labels, and the way back undoes it
    where, interpolation, problem = _posed(image, points, mode, padding_mode, fill, align_corners, units)
    parts = where.detach().split(CHUNK, dim=1)
    won = torch.cat([read_batches(image, part, interpolation, problem, _vote) for part in parts], dim=2)
    won = won.to(labels.dtype).reshape(*won.shape[:2], *points.shape[1:-1])
    return won if labels.dim() == dims + 2 else won[:, 0]


def label_probabilities(
    labels: Tensor,  # (N, *in) or (N, 1, *in), whole numbers in [0, num_classes)
    points: Tensor,  # (N, *S, d), last axis (x[, y[, z]])
    num_classes: int,
    *,
    mode: str | Interpolation = "bilinear",
    padding_mode: str | Sequence[str] = "zeros",
    fill: int = 0,
    align_corners: bool = False,
    units: str = "normalized",
) -> Tensor:
    """The share of each label in what a point reads: P_l = sum_nm [U_nm = l] k(x - m; Phi_x) k(y - n; Phi_y).

    That is ``sample(one_hot(labels))``, without the one-hot image: the result is the only thing of its size. Its argmax
    is ``sample_labels(..., soft=True)``. Shares sum to 1; kernels with negative weights have negative shares.

    Args:
        num_classes: labels run from 0 to num_classes - 1.
        fill: the label outside under "zeros", and of points with a NaN or infinite coordinate.
        The others as :func:`sample_labels`.
    Returns: (N, num_classes, *S), float64 for float64 points, else float32.
    Gradients: to points and the parameters of ``mode``, of every order: a Dice loss can move a label map.
    Raises: TypeError / ValueError naming the argument, what came and what was wanted.

    Example:
        >>> labels = torch.tensor([[0, 2]])
        >>> label_probabilities(labels, torch.tensor([[[0.25]]]), 3, units="pixel").tolist()
        [[[0.75], [0.0], [0.25]]]
    """
    image, dims = _label_image(labels, points)
    if labels.dim() == dims + 2 and labels.shape[1] != 1:
        raise ValueError(f"labels: wanted (N, *in) or one channel, got {_checks.describe(labels)}")
    _checks.classes(image, num_classes, fill)
    image = image.long()
    where, interpolation, problem = _posed(image, points, mode, padding_mode, fill, align_corners, units)
    batch = _checks.broadcast_batch("labels", len(image), "points", len(where))
    image, where = image.expand(batch, *image.shape[1:]), where.expand(batch, -1, -1)
    shares = read_batches(image, where, interpolation, problem, partial(_shares, num_classes=num_classes))
    if shares.numel() == 0:
        shares = shares.expand(-1, num_classes, -1).to(where)
    lost = ~finite(where, problem, "pixel")[:, None]
    alone = torch.arange(num_classes, device=where.device)[:, None] == problem.fill
    shares = torch.where(lost, alone.to(where), shares)
    return shares.reshape(*shares.shape[:2], *points.shape[1:-1])


def _label_image(labels: object, points: object) -> tuple[Tensor, int]:
    """(N, C, *in) and d: checked."""
    given, pts = _checks.tensor("labels", labels), _checks.tensor("points", points)
    dims = pts.shape[-1] if pts.dim() > 1 else 0
    if dims not in (1, 2, 3) or given.dim() not in (dims + 1, dims + 2):
        raise ValueError(
            "labels: wanted (N, *in) or (N, C, *in) for points (N, ..., d), as many axes *in as d, got "
            f"{_checks.describe(given)} and points {_checks.describe(pts)}"
        )
    if given.is_floating_point() or given.is_complex():
        raise TypeError(f"labels: wanted whole numbers or bools, got {_checks.describe(given)}")
    image = given if given.dim() == dims + 2 else given[:, None]
    _checks.image(image, whole=True)
    _checks.points(pts, dims)
    _checks.same_device("labels", given, "points", pts)
    _checks.broadcast_batch("labels", given.shape[0], "points", pts.shape[0])
    return image, dims


def _posed(
    image: Tensor,
    points: Tensor,
    mode: str | Interpolation,
    padding_mode: str | Sequence[str],
    fill: int,
    align_corners: bool,
    units: str,
) -> tuple[Tensor, Interpolation, Problem]:
    """Pixel points (N, M, d) that may be lost, the kernel that votes, and the problem."""
    in_size = tuple(image.shape[2:])
    _checks.units(units, points, len(in_size))
    out_size = tuple(points.shape[1:-1]) if points.dim() == len(in_size) + 2 else None
    interpolation = as_interpolation(mode).fitted(in_size, out_size)
    if any(responses(interpolation, len(in_size))):
        raise ValueError(f"mode: wanted a kernel without prefilter for labels, such as 'bilinear', got {mode!r}")
    real = points if points.dtype == torch.float64 else points.float()
    problem = problem_of(
        real,
        in_size,
        interpolation,
        padding_mode=padding_mode,
        fill=0.0,
        edge="blend",
        align_corners=align_corners,
        units="pixel",
        image_grad=False,
        deterministic=True,
    )
    problem = replace(problem, fill=_checks.fill(fill, image.dtype))
    where = as_list(in_units(real, units, "pixel", in_size, align_corners=align_corners))
    return where, interpolation, problem


def _read_taps(image: Tensor, points: Tensor, interpolation: Interpolation, problem: Problem) -> tuple[Tensor, Tensor]:
    """The labels (N, C, taps, M) that every point reads, in the order of their taps, and the weights (N, taps, M)."""
    flat = image.flatten(2)
    read, weights = [], []
    for index, weight, inside in taps(axes_of(points, interpolation, problem), problem.in_size):
        label = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1))
        read.append(torch.where(inside[:, None], label, flat.new_full((), problem.fill)))
        weights.append(weight)
    return torch.stack(read, dim=2), torch.stack(weights, dim=1)


def _vote(image: Tensor, points: Tensor, interpolation: Interpolation, problem: Problem) -> Tensor:
    """The label with the most weight, in the form of a backend's `sample`."""
    read, weights = _read_taps(image, points, interpolation, problem)
    won = most = None
    for label in read.unbind(2):
        weight = torch.where(read == label[:, :, None], weights[:, None], 0.0).sum(dim=2)
        if won is None or most is None:
            won, most = label, weight
            continue
        better = (weight > most) | ((weight == most) & (label < won))
        won, most = torch.where(better, label, won), torch.where(better, weight, most)
    assert won is not None
    return won


def _shares(
    image: Tensor, points: Tensor, interpolation: Interpolation, problem: Problem, *, num_classes: int
) -> Tensor:
    """The weight that falls on each label, in the form of a backend's `sample` with the labels as its channels."""
    read, weights = _read_taps(image, points, interpolation, problem)
    nothing = weights.new_zeros(len(read), num_classes, points.shape[1])
    if nothing.is_cuda:  # where scatter_add adds in any order
        batch = torch.arange(len(read), device=read.device)[:, None, None]
        column = torch.arange(points.shape[1], device=read.device)
        return nothing.index_put((batch, read[:, 0], column), weights, accumulate=True)
    return nothing.scatter_add(1, read[:, 0], weights)
