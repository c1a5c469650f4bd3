"""Modules: the spatial transformer of the paper's Figure 2, its localisation features, and the training kit."""

from torch_stn.nn import penalties as penalties
from torch_stn.nn.localization import LocalizationConv as LocalizationConv
from torch_stn.nn.localization import LocalizationFC as LocalizationFC
from torch_stn.nn.monitor import CollapseWarning as CollapseWarning
from torch_stn.nn.monitor import Limits as Limits
from torch_stn.nn.monitor import Monitor as Monitor
from torch_stn.nn.parameter_groups import parameter_groups as parameter_groups
from torch_stn.nn.prepend import Prepended as Prepended
from torch_stn.nn.prepend import prepend as prepend
from torch_stn.nn.stn import SpatialTransformer as SpatialTransformer
