"""Several families in a row as one family."""

import torch
from torch import Tensor, nn

from torch_stn.transforms.base import Transform
from torch_stn.transforms.maps import Map


class Sequence(Transform):
    """``Sequence(a, b)(theta) = a(theta_a).then(b(theta_b))``: first a, then b, as the picture moves.

    theta (N, P_a + P_b + ...), the flat thetas one after the other; T(xy) = T_a(T_b(xy)). The image is read once,
    however many families there are: neighbouring matrices become one matrix, everything else one field. A global map
    and a local one on top of it, the multi-level model of registration, is ``Sequence(Affine(), ThinPlateSpline())``.

    Raises: TypeError / ValueError where there is no family, one is no Transform, or they differ in dimension.

    Example:
        >>> from torch_stn import Attention, Translation
        >>> both = Sequence(Translation(), Attention())
        >>> both.num_params
        5
        >>> theta = torch.tensor([[0.5, 0.0, 2.0, 0.0, 0.0]])  # shift by 0.5, then zoom out
        >>> both(theta).sources(torch.tensor([[[0.25, 0.25]]])).tolist()
        [[[1.0, 0.5]]]
    """

    def __init__(self, *families: Transform) -> None:
        super().__init__()
        if not families:
            raise ValueError("families: wanted at least one Transform, got none")
        for family in families:
            if not isinstance(family, Transform):
                raise TypeError(f"families: wanted Transform objects such as Affine(), got {family!r}")
            if family.dims != families[0].dims:
                raise ValueError(f"families: wanted {families[0].dims}-D ones as the first, got a {family.dims}-D one")
        self.families = nn.ModuleList(families)
        self.dims = families[0].dims
        self.has_identity = all(family.has_identity for family in families)
        self.counts = [family.num_params for family in families]
        self.theta_shape = (sum(self.counts),)

    def identity(self) -> Tensor:
        return torch.cat([family.identity().flatten() for family in self._each()])

    def initial(self) -> Tensor:
        return torch.cat([family.initial().flatten() for family in self._each()])

    def map(self, theta: Tensor) -> Map:
        first, *others = [f(part) for f, part in zip(self._each(), theta.split(self.counts, dim=-1), strict=True)]
        for other in others:
            first = first.then(other)
        return first

    def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
        return self.map(theta).displacement(xy)

    def _each(self) -> list[Transform]:
        return list(self.families)  # type: ignore[arg-type]
