"""Run folders in, one self-contained HTML page and one animation out. Reads files only: no training, no torch."""

from torch_stn.lab.report.animation import render_alignment_gif
from torch_stn.lab.report.page import build_report

__all__ = ["build_report", "render_alignment_gif"]
