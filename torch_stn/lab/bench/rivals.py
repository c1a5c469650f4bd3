"""Who else does it: PyTorch's two steps, eager and compiled, kornia, OpenCV. Each says why it cannot.

Matrices and layouts that a rival wants instead of ours are made before the clock starts.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_stn.coordinates import to_pixel
from torch_stn.lab.bench.contenders import Contender, Read
from torch_stn.lab.bench.inputs import Inputs, pixel_matrix, transform_of


class Missing(Exception):
    """Why a rival does not take part in a case: one line."""


def rivals(names: tuple[str, ...], inputs: Inputs) -> tuple[list[Contender], dict[str, str]]:
    """The rivals that can do the case, each having done it once; and why the others cannot."""
    able, missing = [], {}
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a rival's advice to its own users
                contender = RIVALS[name](inputs)
                contender.forward()
                if contender.trains and inputs.case.gradients:
                    contender.both()
        except Missing as reason:
            missing[name] = str(reason)
        except Exception as error:  # foreign code may fail in any way; that it does is a finding, not our end
            missing[name] = f"fails: {type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}"[:160]
        else:
            able.append(contender)
    return able, missing


def _aten(inputs: Inputs) -> Contender:
    return Contender("aten", _two_steps(inputs), inputs)


def _two_steps(inputs: Inputs) -> Read:
    """A grid, F.affine_grid's where that can, then F.grid_sample. Of a half image in float32: in half precision the
    grid alone is off by pixels.
    """
    case = inputs.case
    dtype = inputs.image.dtype
    half = dtype not in (torch.float32, torch.float64)
    transform = None if case.family in ("affine", "points") else transform_of(case).to(inputs.image.device)
    shape = [case.batch, case.image[1], *case.size]

    def read(image: Tensor, theta: Tensor) -> Tensor:
        if case.family == "points":
            grid = theta
        elif transform is None:
            grid = F.affine_grid(theta, shape, align_corners=case.align_corners)
        else:
            grid = transform(theta).grid(case.size, align_corners=case.align_corners)
        image = image.expand(len(grid), *image.shape[1:]) if case.maps else image
        picture = F.grid_sample(
            image.float() if half else image, grid, case.mode, case.padding, align_corners=case.align_corners
        )
        return picture.to(dtype) if half else picture

    return read


def _compile(inputs: Inputs) -> Contender:
    config: Any = importlib.import_module("torch._inductor.config")
    config.compile_threads = 1  # worker processes would be awake beside the clock
    torch._dynamo.reset()  # what earlier cases compiled counts towards a limit
    return Contender("compile", torch.compile(_two_steps(inputs), dynamic=False, fullgraph=True), inputs)


def _kornia(inputs: Inputs) -> Contender:
    """With matrices that hold pixels, hence align_corners=True, whichever the case has: the same points are read."""
    case = inputs.case
    transform = _module("kornia.geometry.transform", "kornia")
    options: dict[str, Any] = {"padding_mode": case.padding, "align_corners": True}
    mode = {"mode": case.mode}
    own = inputs.theta
    read: Callable[[Tensor, Tensor], Tensor]
    if case.family == "tps":
        if case.mode != "bilinear":
            raise Missing("its thin-plate spline is bilinear")
        centres = transform_of(case).identity().to(inputs.theta)[None].expand(case.batch, -1, -1)

        def read(image: Tensor, theta: Tensor) -> Tensor:
            # Its spline has its kernels at theta: it meets ours at the control points only.
            weights, plane = transform.get_tps_transform(centres, theta)
            return transform.warp_image_tps(image, theta, weights, plane, **options)

    elif case.family == "points":
        if case.dims == 3:
            raise Missing("remap is for images")
        own = _pixels(inputs)

        def read(image: Tensor, points: Tensor) -> Tensor:
            return transform.remap(image, points[..., 0], points[..., 1], **mode, **options)

    else:
        matrix = torch.linalg.inv(pixel_matrix(case, inputs.theta)).to(inputs.theta)
        own = matrix if case.family == "projective" else matrix[:, :-1].contiguous()
        warp = _kornia_warp(transform, case.family, case.dims)
        flags = {"flags": case.mode} if case.dims == 3 else mode

        def read(image: Tensor, theta: Tensor) -> Tensor:
            image = image.expand(len(theta), *image.shape[1:]) if case.maps else image
            return warp(image, theta, case.size, **flags, **options)

    return Contender("kornia", read, Inputs(case, inputs.image, own, inputs.upstream))


def _kornia_warp(transform: Any, family: str, dims: int) -> Any:
    """Its function for a matrix of this family."""
    if dims == 3:
        return transform.warp_affine3d
    return transform.warp_perspective if family == "projective" else transform.warp_affine


def _opencv(inputs: Inputs) -> Contender:
    """Forward only, image by image, channels innermost as it wants them, on as many threads as torch."""
    case = inputs.case
    cv2 = _module("cv2", "opencv-python-headless")
    if inputs.image.device.type != "cpu":
        raise Missing("its GPU build is not on PyPI")
    if case.dims == 3:
        raise Missing("no volumes")
    if case.dtype not in ("float32", "float64"):
        raise Missing(f"no {case.dtype}")
    if case.family == "tps":
        raise Missing("its thin-plate spline is not differentiable, nor a warp by itself")
    if case.image[1] > 4:
        raise Missing("its warps take up to 4 channels")
    cv2.setNumThreads(torch.get_num_threads())
    flags = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
    borders = {"zeros": cv2.BORDER_CONSTANT, "border": cv2.BORDER_REPLICATE, "reflection": cv2.BORDER_REFLECT}
    if case.mode not in flags or case.padding not in borders:
        raise Missing(f"no {case.mode} with {case.padding}")
    flag, border, size = flags[case.mode], borders[case.padding], case.size[::-1]
    images = [image.movedim(0, -1).contiguous().numpy() for image in inputs.image] * (case.maps or 1)
    if case.family == "points":
        maps = [tuple(p.float().contiguous().numpy() for p in points.unbind(-1)) for points in _pixels(inputs)]
        one = lambda image, xy: cv2.remap(image, *xy, flag, borderMode=border)  # noqa: E731
    else:
        maps = list(pixel_matrix(case, inputs.theta).numpy())
        if case.family == "affine":
            maps, warp = [matrix[:2] for matrix in maps], cv2.warpAffine
        else:
            warp = cv2.warpPerspective
        one = lambda image, m: warp(image, m, size, flags=flag | cv2.WARP_INVERSE_MAP, borderMode=border)  # noqa: E731

    def read(image: Tensor, theta: Tensor) -> list[Any]:
        return [one(picture, m) for picture, m in zip(images, maps, strict=True)]

    def as_tensor(pictures: list[Any]) -> Tensor:
        rows = [torch.from_numpy(p.reshape(*case.size, -1)).movedim(-1, 0) for p in pictures]
        return torch.stack(rows)

    return Contender("opencv", read, inputs, trains=False, as_tensor=as_tensor)


def _pixels(inputs: Inputs) -> Tensor:
    """Given points in pixels."""
    case = inputs.case
    exact = to_pixel(inputs.theta.double(), case.image[2:], align_corners=case.align_corners)
    return exact.to(inputs.theta)


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Missing(f"not installed: pip install {package}") from None


RIVALS: dict[str, Callable[[Inputs], Contender]] = {
    "aten": _aten,
    "compile": _compile,
    "kornia": _kornia,
    "opencv": _opencv,
}
