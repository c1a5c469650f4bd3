"""``F.grid_sample`` and ``F.affine_grid`` over our samplers: change one import.

from torch_stn.compat import affine_grid, grid_sample
"""

import warnings
from collections.abc import Sequence

from torch import Tensor

from torch_stn import _checks
from torch_stn.sampling.sample import sample
from torch_stn.transforms.matrix import Affine


def grid_sample(
    input: Tensor,  # (N, C, H, W) or (N, C, D, H, W)
    grid: Tensor,  # (N, h, w, 2) or (N, d, h, w, 3)
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """As ``torch.nn.functional.grid_sample``; a NaN point reads 0 here, where torch returns NaN under ``zeros``.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 1, 4, 4)
        >>> grid_sample(image, affine_grid(torch.eye(2, 3)[None], [1, 1, 4, 4], False), align_corners=False).shape
        torch.Size([1, 1, 4, 4])
    """
    if _checks.tensor("input", input).dim() not in (4, 5):
        raise ValueError(f"input: wanted (N, C, H, W) or (N, C, D, H, W), got {_checks.describe(input)}")
    return sample(
        input, grid, mode=mode, padding_mode=padding_mode, align_corners=_corners("grid_sample", align_corners)
    )


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """As ``torch.nn.functional.affine_grid``: theta (N, 2, 3) or (N, 3, 4), size (N, C, H, W) or (N, C, D, H, W)."""
    corners = _corners("affine_grid", align_corners)
    if len(size) not in (4, 5):
        raise ValueError(f"size: wanted (N, C, H, W) or (N, C, D, H, W), got {tuple(size)}")
    grid = Affine(len(size) - 2)(theta).grid(size[2:], align_corners=corners)
    if size[0] != theta.shape[0]:
        raise ValueError(f"theta: wanted the batch size of size, {size[0]}, got {_checks.describe(theta)}")
    return grid.to(theta.dtype)


def _corners(name: str, given: bool | None) -> bool:
    """torch's default, with torch's warning."""
    if given is None:
        warnings.warn(f"{name}: align_corners was not given and is taken as False, as torch does", stacklevel=3)
        return False
    return given
