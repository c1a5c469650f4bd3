"""The flow of a velocity field that is continuous and affine on each simplex, from simplex to simplex."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.transforms.maps import holds
from torch_stn.transforms.tessellation import locate

_TERMS = 9  # of exp(t A) x as a power series; for |t A| <= 1 the next term is below 3e-7, for 1/2 below 3e-10


def flow(
    xy: Tensor,  # (N or 1, M, d)
    fields: Tensor,  # (N, C, d, d + 1): velocity = matrix (x, 1) on each simplex
    barycentric: Tensor,  # (C, d + 1, d + 1)
    neighbours: Tensor,  # (C, d + 1)
    boxes: Sequence[int],
    steps: int,
    crossings: int,
) -> Tensor:  # (N, M, d)
    """The displacement after time 1.

    Within a simplex the flow is exp(t A), taken as a power series. A sub-step ends at the face where the point leaves
    its simplex, found by Newton iteration, or after the time for which the series is exact, 1 / (2 |A|), but not before
    1 / steps. So there are at most steps + crossings of them; where these do not suffice the result is NaN.
    """
    d = xy.shape[-1]
    batch = _checks.broadcast_batch("theta", fields.shape[0], "xy", xy.shape[0])
    # Points are the last axis in here, (N, d, M): planes of numbers, which run several times as fast.
    start = xy.expand(batch, -1, -1).mT.contiguous()
    table = fields.flatten(2).expand(batch, -1, -1).mT
    across_all, barycentric = neighbours.T, barycentric.flatten(1).T.contiguous()
    # |A| by its largest row sum. How time is cut does not change the flow, so nothing of it needs a gradient.
    pace = (2 * fields.detach()[..., :-1].abs().sum(dim=-1).amax(dim=-1)).clamp(1, steps).expand(batch, -1)
    cell = locate(start.mT, boxes)
    moved, left = torch.zeros_like(start), torch.ones_like(start[:, 0])
    tiny = 16 * torch.finfo(xy.dtype).eps
    for _ in range(steps + crossings):
        if _over(left):
            break
        longest = 1 / pace.gather(1, cell)
        # What rounding has left of the time is no sub-step of its own.
        time = torch.where(left <= longest + tiny, left, longest)
        here = start + moved
        field = table.gather(2, cell[:, None].expand(-1, table.shape[1], -1)).unflatten(1, (d, d + 1))
        series = _series(field, here)
        to_faces = barycentric[:, cell].movedim(0, 1).unflatten(1, (d + 1, d + 1))
        coefficients = [_apply(to_faces, term) for term in series]  # of the barycentric coordinates in t
        first = _apply(to_faces, here) + to_faces[:, :, d]
        time, cell = _first_face(first, coefficients, time, cell, across_all[:, cell].movedim(0, 1), tiny)
        moved = moved + _polynomial(series, time[:, None])
        # Exactly 0, so that nothing is left to do.
        left = torch.where(left - time > tiny, left - time, 0.0)
    finished = (left <= tiny)[:, None]
    return torch.where(finished, moved, torch.full_like(moved, float("nan"))).mT


def _over(left: Tensor) -> bool:
    """Whether no point has time left, where a look costs little: a GPU would have to be waited for, and a graph or a
    vmap has nothing to look at; there all sub-steps are made.
    """
    return left.device.type == "cpu" and not torch.compiler.is_compiling() and holds(left == 0)


def _series(field: Tensor, here: Tensor) -> list[Tensor]:
    """x(t) - x = sum_k t^k terms[k - 1]: v, A v / 2, A^2 v / 6, ..."""
    terms = [_apply(field, here) + field[:, :, -1]]
    for k in range(2, _TERMS + 1):
        terms.append(_apply(field, terms[-1]) / k)
    return terms


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix (N, r, d or d + 1, M) @ vector (N, d, M), point by point; as sums, which autocast and TF32 leave alone."""
    if torch.compiler.is_compiling():  # a third of the operators: a graph holds every sub-step
        return (matrix[:, :, : vector.shape[1]] * vector[:, None]).sum(dim=2)
    total = matrix[:, :, 0] * vector[:, None, 0]
    for k in range(1, vector.shape[1]):
        total = torch.addcmul(total, matrix[:, :, k], vector[:, None, k])
    return total


def _polynomial(terms: Sequence[Tensor], t: Tensor) -> Tensor:
    """sum_k t^k terms[k - 1], k from 1."""
    total = terms[-1]
    for term in reversed(terms[:-1]):
        total = torch.addcmul(term, total, t)
    return total * t


def _first_face(
    first: Tensor,  # (N, d + 1, M): barycentric coordinates now
    coefficients: list[Tensor],  # of their power series in t
    time: Tensor,  # (N, M)
    cell: Tensor,
    across: Tensor,  # (N, d + 1, M): the neighbours
    tiny: float,
) -> tuple[Tensor, Tensor]:
    """The time until the point leaves its simplex, at most ``time``, and the simplex that it then is in."""
    with torch.no_grad():
        change = _polynomial(coefficients, time[:, None])
        # The parabola with the value and slope at 0 and the value at the end: a point that has just come in through a
        # face may turn and leave through it, which the straight line would take for no way at all.
        slope = coefficients[0] * time[:, None]
        bend, value = change - slope, first.clamp(min=0)
        falls = slope <= 0
        # A point may also leave and be back before the time is over: look where the parabola is lowest.
        lowest = torch.where(falls & (2 * bend > -slope), slope / (-2 * bend).clamp(max=-tiny), 1.0)
        deepest = _polynomial(coefficients, lowest * time[:, None])
        dips = first + deepest < -tiny
        bend = torch.where(dips, (deepest - slope * lowest) / lowest.square().clamp(min=tiny), bend)
        leaves = (dips | (first + change < -tiny)) & (across >= 0)
        root = (slope.square() - 4 * bend * value).clamp(min=0).sqrt()
        guess = torch.where(
            falls, 2 * value / (root - slope).clamp(min=tiny), (-slope - root) / (2 * bend.clamp(max=-tiny))
        )
        guess = torch.where(leaves, guess.clamp(0, 1), 2.0)
        fraction, face = guess.min(dim=1, keepdim=True)
        crosses = fraction[:, 0] <= 1
    own = [term.gather(1, face)[:, 0] for term in coefficients]
    slopes = [k * term for k, term in enumerate(own, start=1)]
    value = first.gather(1, face)[:, 0]

    def newton(t: Tensor) -> Tensor:
        slope = slopes[0] + _polynomial(slopes[1:], t)
        # Towards the face the coordinate falls; where it does not, the guess stays.
        return t - torch.where(slope < -tiny, (value + _polynomial(own, t)) / slope.clamp(max=-tiny), 0.0)

    with torch.no_grad():
        root = fraction[:, 0].clamp(max=1) * time
        for _ in range(3):
            root = torch.minimum(newton(root).clamp(min=0), time)
    # One more step, the only differentiable one. The velocity is continuous across the face: the first derivative of
    # the flow needs no slope of the crossing time, the second one does.
    exact = newton(root.detach())
    exact = torch.where((exact > 0) & (exact < time), exact, root)
    target = across.gather(1, face)[:, 0]
    return torch.where(crosses, exact, time), torch.where(crosses, target, cell)


def flow_on_a_line(
    x: Tensor,  # (N or 1, M, 1)
    fields: Tensor,  # (N, C, 1, 2): velocity = a x + b on each interval
    edges: Tensor,  # (C + 1,): of the intervals
    boxes: Sequence[int],
) -> Tensor:  # (N, M, 1)
    """The displacement after time 1, in closed form: x(t) = x + t v (e^(a t) - 1) / (a t) in an interval, which is left
    at t = (edge - x) / v * log(1 + z) / z with z = a (edge - x) / v.
    """
    batch = _checks.broadcast_batch("theta", fields.shape[0], "xy", x.shape[0])
    start = x[..., 0].expand(batch, -1)
    fields = fields[:, :, 0].expand(batch, -1, -1)
    cell, moved, left = locate(start[..., None], boxes), torch.zeros_like(start), torch.ones_like(start)
    count = len(edges) - 1
    for _ in range(count):  # a flow on a line turns nowhere: it enters each interval once
        a, b = fields.gather(1, cell[..., None].expand(-1, -1, 2)).unbind(-1)
        here = start + moved
        velocity = a * here + b
        forward = velocity > 0
        way = edges[cell + forward.long()] - here
        moving = velocity.abs() > torch.finfo(x.dtype).tiny ** 0.5
        direct = torch.where(moving, way, 0.0) / torch.where(moving, velocity, 1.0)
        z = a * direct
        reaches = moving & (z > -1 + 1e-12)
        until = direct * _log_ratio(torch.where(reaches, z, 0.0))
        target = cell + torch.where(forward, 1, -1)
        crosses = reaches & (until < left) & (target >= 0) & (target < count)
        time = torch.where(crosses, until, left)
        moved = moved + time * velocity * _exp_ratio(a * time)
        left = left - time
        cell = torch.where(crosses, target, cell)
    return moved[..., None]


def _exp_ratio(z: Tensor) -> Tensor:
    """(e^z - 1) / z, 1 at 0."""
    small = z.abs() < 1e-3
    safe = torch.where(small, 1.0, z)
    return torch.where(small, 1 + z / 2 * (1 + z / 3 * (1 + z / 4 * (1 + z / 5))), safe.expm1() / safe)


def _log_ratio(z: Tensor) -> Tensor:
    """log(1 + z) / z, 1 at 0."""
    small = z.abs() < 1e-3
    safe = torch.where(small, 1.0, z)
    return torch.where(small, 1 - z * (1 / 2 - z * (1 / 3 - z * (1 / 4 - z * (1 / 5 - z / 6)))), safe.log1p() / safe)
