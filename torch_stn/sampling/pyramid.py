"""An image pyramid in one picture, so that one read serves points on all its levels.

Level l holds the means of cells of 2^l pixels a side; beyond the image a cell counts as the padding rule has it, as 0
where there is none. The levels lie one after the other along the first space axis, each in a frame of one cell of what
is beyond it:

    +--------+
    | level 1|        position along an axis, in cells of level l: (pixel + 1/2) / 2^l - 1/2
    +----+---+
    | 2  |
    +--+-+
    |3 |
    +--+
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_stn.sampling.padding import PaddingRule, border

FEW = 4  # slices that are added one by one as fast as by a sum over an axis
FRAMED = (None, border)  # rules for which the frame holds all there is beyond the image
Rules = Sequence[PaddingRule | None]  # of x, y[, z]; None: zeros beyond the image


def top_level(in_size: Sequence[int]) -> int:
    """The level that is a single cell."""
    return (max(in_size) - 1).bit_length()


class Pyramid:
    """Levels ``first`` to ``last`` of an image (N, C, *in); ``cells`` (N, C, *size) is the picture that holds them.

    With ``extend``, an axis without a rule repeats its border pixels, and ``inside`` says which points count.
    """

    def __init__(
        self, image: Tensor, levels: tuple[int, int], rules: Rules, *, extend: bool, align_corners: bool
    ) -> None:
        self.sizes, self.first = tuple(image.shape[:1:-1]), levels[0]  # pixels along x, y[, z]
        self.limits = [n if extend and rule is None else None for n, rule in zip(self.sizes, rules, strict=True)]
        self.rules = [border if limit is not None else rule for limit, rule in zip(self.limits, rules, strict=True)]
        self.align_corners = align_corners
        pictures = [cells_of(image, self.first, self.rules, align_corners)]
        for _ in range(*levels):
            pictures.append(reduced(pictures[-1], 2, self.rules, align_corners))
        framed = [_framed(picture, self.rules, align_corners) for picture in pictures]
        self.starts = [0]
        for picture in framed[:-1]:
            self.starts.append(self.starts[-1] + picture.shape[2])
        self.cells = framed[0] if len(framed) == 1 else torch.cat([_widened(f, framed[0]) for f in framed], dim=2)

    def positions(self, points: Tensor, level: Tensor) -> Tensor:
        """Where pixel points (N, *S, d) lie in the picture of cells, each on its level (N, *S or 1s): (N, *S, d)."""
        width, moved = torch.exp2(level), []
        for x, n, rule in zip(points.unbind(dim=-1), self.sizes, self.rules, strict=True):
            inside = x if rule in FRAMED else rule(x, n, self.align_corners)
            count = (n / width).ceil()
            cell = (inside + 0.5) / width - 0.5
            moved.append(torch.minimum(cell.clamp(min=-1), count) + 1)
        moved[-1] = moved[-1] + self._starts(level)
        return torch.stack(torch.broadcast_tensors(*moved), dim=1).movedim(1, -1)

    @property
    def framed(self) -> bool:
        """Whether reading the border of ``cells`` is all that the padding takes: one level, and no point moved."""
        return len(self.starts) == 1 and set(self.rules) <= set(FRAMED) and not any(self.limits)

    def places(self, units: str) -> tuple[list[float], list[float], list[float]]:
        """Where ``framed``: factor and summand, along x, y[, z], that take points of the image to
        points of ``cells`` in the same units, there with align_corners=False; and how far a pixel of the image goes.
        """
        width, factors, summands, pixels = 2.0**self.first, [], [], []
        for n, total in zip(self.sizes, self.cells.shape[:1:-1], strict=True):
            factor, summand = 1 / width, 0.5 / width + 0.5
            pixel = factor
            if units == "normalized":
                summand += factor * (n - 1) / 2
                factor *= (n - 1) / 2 if self.align_corners else n / 2
                factor, summand, pixel = 2 * factor / total, (2 * summand + 1) / total - 1, 2 * pixel / total
            factors.append(factor)
            summands.append(summand)
            pixels.append(pixel)
        return factors, summands, pixels

    def inside(self, points: Tensor) -> Tensor | float:
        """1 where pixel points count, 0 where they lie beyond an axis that ends, (N, *S)."""
        counted: Tensor | float = 1.0
        for x, limit in zip(points.unbind(dim=-1), self.limits, strict=True):
            if limit is not None:
                counted = counted * ((x >= -0.5) & (x <= limit - 0.5))
        return counted

    def _starts(self, level: Tensor) -> Tensor | int:
        """The first row of a level, its frame included."""
        if len(self.starts) == 1:
            return 0
        # Made on the device itself: a CPU tensor copied there would break the capture of a CUDA graph.
        table = torch.stack([torch.full((), start, dtype=level.dtype, device=level.device) for start in self.starts])
        return table[(level - self.first).long()]


def reduced(image: Tensor, factor: int, rules: Rules, align_corners: bool) -> Tensor:
    """Means of cells of ``factor`` pixels a side, (N, C, *cells); the last ones may reach beyond the image."""
    d = image.dim() - 2
    for axis, rule in zip(range(2, 2 + d), reversed(rules), strict=True):
        image = _sums(image, axis, factor, rule, align_corners)
    return image * factor**-d


def cells_of(image: Tensor, level: int, rules: Rules, align_corners: bool) -> Tensor:
    """The cells of one level, (N, C, *cells): in one pass where that gives what halving again and again gives."""
    if level == 0:
        return image
    factor = 2**level
    if all(rule is None for rule in rules) or all(n % factor == 0 for n in image.shape[2:]):
        return reduced(image, factor, rules, align_corners)
    for _ in range(level):
        image = reduced(image, 2, rules, align_corners)
    return image


def _sums(image: Tensor, axis: int, factor: int, rule: PaddingRule | None, align_corners: bool) -> Tensor:
    """Sums of ``factor`` neighbours along one axis."""
    n = image.shape[axis]
    cells, rest = divmod(n, factor)
    parts = image.narrow(axis, 0, n - rest).unflatten(axis, (cells, factor))
    if factor > FEW and axis + 1 < image.dim():
        total = parts.sum(dim=axis + 1)
    else:  # On a CPU several times as fast as a sum over a short last axis, or as pooling.
        slices = parts.unbind(axis + 1)
        total = slices[0] + slices[1]
        for values in slices[2:]:
            total += values
    if rest == 0:
        return total
    last = image.narrow(axis, n - rest, rest).sum(dim=axis, keepdim=True)
    if rule is not None:
        for beyond in range(n, n - rest + factor):
            last = last + _beyond(image, axis, beyond, rule, align_corners)
    return torch.cat([total, last], dim=axis)


def _framed(image: Tensor, rules: Rules, align_corners: bool) -> Tensor:
    """With one more cell on each side of each axis, as the rules have it."""
    if all(rule is None for rule in rules):
        return F.pad(image, [1, 1] * len(rules))
    for axis, rule in zip(range(2, image.dim()), reversed(rules), strict=True):
        if rule is None:
            before = after = torch.zeros_like(image.narrow(axis, 0, 1))
        else:
            before = _beyond(image, axis, -1, rule, align_corners)
            after = _beyond(image, axis, image.shape[axis], rule, align_corners)
        image = torch.cat([before, image, after], dim=axis)
    return image


def _beyond(image: Tensor, axis: int, index: int, rule: PaddingRule, align_corners: bool) -> Tensor:
    """The slice that stands at an index beyond the image."""
    place = rule(torch.full((1,), float(index), device=image.device), image.shape[axis], align_corners)
    return image.index_select(axis, place.round().long())


def _widened(image: Tensor, like: Tensor) -> Tensor:
    """Zeros behind, up to the extents of a larger level, except along the first space axis."""
    missing = [n - m for n, m in zip(like.shape[:2:-1], image.shape[:2:-1], strict=True)]
    return F.pad(image, [extent for more in missing for extent in (0, more)])
