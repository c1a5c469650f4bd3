"""One call of the Triton kernels without its tensors; needs no triton."""

from typing import NamedTuple

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
PADDINGS = ("zeros", "border", "reflection")  # as cells.py numbers them
FORMS = ("affine", "projective", "basis", "field", "points")  # as sources.py numbers them
GIVEN = FORMS[3:]


class How(NamedTuple):
    """One call without its tensors."""

    form: str
    size: tuple[int, ...]  # of the output
    interpolation: str
    padding: str
    fill: float
    align_corners: bool
    deterministic: bool
