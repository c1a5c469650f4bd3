"""Families of maps: theta -> where to read in the image (paper 3.2). A new family is one file and one line of
TRANSFORMS.
"""

from collections.abc import Callable
from functools import partial

from torch_stn.transforms.base import Transform as Transform
from torch_stn.transforms.basis import Basis as Basis
from torch_stn.transforms.basis import BasisTransform as BasisTransform
from torch_stn.transforms.bounded_affine import BoundedAffine as BoundedAffine
from torch_stn.transforms.cpab import CPAB as CPAB
from torch_stn.transforms.displacement import DisplacementField as DisplacementField
from torch_stn.transforms.displacement import FieldMap as FieldMap
from torch_stn.transforms.exponential_affine import ExponentialAffine as ExponentialAffine
from torch_stn.transforms.free_form import FreeFormDeformation as FreeFormDeformation
from torch_stn.transforms.maps import Map as Map
from torch_stn.transforms.matrix import Affine as Affine
from torch_stn.transforms.matrix import Attention as Attention
from torch_stn.transforms.matrix import MatrixMap as MatrixMap
from torch_stn.transforms.matrix import MatrixTransform as MatrixTransform
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
from torch_stn.transforms.world import from_world as from_world
from torch_stn.transforms.world import in_world as in_world
from torch_stn.transforms.world import to_world as to_world

# The names of the command line and of configs; each makes its family without arguments.
TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "translation": Translation,
    "attention": Attention,
    "attention-half": partial(Attention, scale=0.5),
    "rigid": Rigid,
    "similarity": Similarity,
    "affine": Affine,
    "affine-bounded": BoundedAffine,
    "affine-exp": ExponentialAffine,
    "projective": Projective,
    "tps": ThinPlateSpline,
    "polar": Polar,
    "log-polar": LogPolar,
    "polyharmonic": PolyharmonicSpline,
    "ffd": FreeFormDeformation,
    "displacement": DisplacementField,
    "velocity": VelocityField,
    "cpab": CPAB,
}
