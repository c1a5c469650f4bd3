"""Spatial transformer networks: transforms, differentiable samplers and modules on PyTorch.

The way of the data is one line: theta -> Map -> lowered form -> image.

>>> import torch, torch_stn
>>> image = torch.rand(2, 3, 32, 32)
>>> theta = torch.tensor([[1.0, 0, 0, 0, 1, 0]]).repeat(2, 1)
>>> torch_stn.warp(image, torch_stn.Affine()(theta), (28, 28)).shape
torch.Size([2, 3, 28, 28])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch_stn._version import __version__

if TYPE_CHECKING:
    from torch_stn.nn.localization import LocalizationConv as LocalizationConv
    from torch_stn.nn.localization import LocalizationFC as LocalizationFC
    from torch_stn.nn.stn import SpatialTransformer as SpatialTransformer
    from torch_stn.sampling.gradients import CoarseToFineGradient as CoarseToFineGradient
    from torch_stn.sampling.gradients import CoordinateGradient as CoordinateGradient
    from torch_stn.sampling.gradients import LinearizedGradient as LinearizedGradient
    from torch_stn.sampling.interpolation import Interpolation as Interpolation
    from torch_stn.sampling.labels import label_probabilities as label_probabilities
    from torch_stn.sampling.labels import sample_labels as sample_labels
    from torch_stn.sampling.sample import sample as sample
    from torch_stn.sampling.slopes import spatial_gradient as spatial_gradient
    from torch_stn.sampling.splat import count as count
    from torch_stn.sampling.splat import splat as splat
    from torch_stn.transforms.base import Transform as Transform
    from torch_stn.transforms.basis import Basis as Basis
    from torch_stn.transforms.bounded_affine import BoundedAffine as BoundedAffine
    from torch_stn.transforms.cpab import CPAB as CPAB
    from torch_stn.transforms.displacement import DisplacementField as DisplacementField
    from torch_stn.transforms.displacement import FieldMap as FieldMap
    from torch_stn.transforms.exponential_affine import ExponentialAffine as ExponentialAffine
    from torch_stn.transforms.free_form import FreeFormDeformation as FreeFormDeformation
    from torch_stn.transforms.maps import Map as Map
    from torch_stn.transforms.matrix import Affine as Affine
    from torch_stn.transforms.matrix import Attention as Attention
    from torch_stn.transforms.matrix import Translation as Translation
    from torch_stn.transforms.polar import LogPolar as LogPolar
    from torch_stn.transforms.polar import Polar as Polar
    from torch_stn.transforms.projective import Projective as Projective
    from torch_stn.transforms.rigid import Rigid as Rigid
    from torch_stn.transforms.sequence import Sequence as Sequence
    from torch_stn.transforms.similarity import Similarity as Similarity
    from torch_stn.transforms.spline_map import LandmarkSpline as LandmarkSpline
    from torch_stn.transforms.spline_map import SplineMap as SplineMap
    from torch_stn.transforms.thin_plate import PolyharmonicSpline as PolyharmonicSpline
    from torch_stn.transforms.thin_plate import ThinPlateSpline as ThinPlateSpline
    from torch_stn.transforms.velocity import VelocityField as VelocityField
    from torch_stn.transforms.velocity import exponential as exponential
    from torch_stn.transforms.velocity import logarithm as logarithm
    from torch_stn.transforms.world import in_world as in_world
    from torch_stn.warping import warp as warp

# Resolved on first use (PEP 562), so that `import torch_stn` and `stn --help` need no torch.
_HOMES = {
    "Affine": "torch_stn.transforms.matrix",
    "Attention": "torch_stn.transforms.matrix",
    "Basis": "torch_stn.transforms.basis",
    "BoundedAffine": "torch_stn.transforms.bounded_affine",
    "CPAB": "torch_stn.transforms.cpab",
    "CoarseToFineGradient": "torch_stn.sampling.gradients",
    "CoordinateGradient": "torch_stn.sampling.gradients",
    "DisplacementField": "torch_stn.transforms.displacement",
    "ExponentialAffine": "torch_stn.transforms.exponential_affine",
    "FieldMap": "torch_stn.transforms.displacement",
    "FreeFormDeformation": "torch_stn.transforms.free_form",
    "Interpolation": "torch_stn.sampling.interpolation",
    "LandmarkSpline": "torch_stn.transforms.spline_map",
    "LinearizedGradient": "torch_stn.sampling.gradients",
    "LocalizationConv": "torch_stn.nn.localization",
    "LocalizationFC": "torch_stn.nn.localization",
    "LogPolar": "torch_stn.transforms.polar",
    "Map": "torch_stn.transforms.maps",
    "Polar": "torch_stn.transforms.polar",
    "PolyharmonicSpline": "torch_stn.transforms.thin_plate",
    "Projective": "torch_stn.transforms.projective",
    "Rigid": "torch_stn.transforms.rigid",
    "Sequence": "torch_stn.transforms.sequence",
    "Similarity": "torch_stn.transforms.similarity",
    "SpatialTransformer": "torch_stn.nn.stn",
    "SplineMap": "torch_stn.transforms.spline_map",
    "ThinPlateSpline": "torch_stn.transforms.thin_plate",
    "Transform": "torch_stn.transforms.base",
    "Translation": "torch_stn.transforms.matrix",
    "VelocityField": "torch_stn.transforms.velocity",
    "count": "torch_stn.sampling.splat",
    "exponential": "torch_stn.transforms.velocity",
    "in_world": "torch_stn.transforms.world",
    "label_probabilities": "torch_stn.sampling.labels",
    "logarithm": "torch_stn.transforms.velocity",
    "sample": "torch_stn.sampling.sample",
    "sample_labels": "torch_stn.sampling.labels",
    "spatial_gradient": "torch_stn.sampling.slopes",
    "splat": "torch_stn.sampling.splat",
    "warp": "torch_stn.warping",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'torch_stn' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
