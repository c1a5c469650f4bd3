"""Modules: the spatial transformer of the paper's Figure 2 and its localisation features."""

from torch_stn.nn.localization import LocalizationConv as LocalizationConv
from torch_stn.nn.localization import LocalizationFC as LocalizationFC
from torch_stn.nn.stn import SpatialTransformer as SpatialTransformer
