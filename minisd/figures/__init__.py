"""Every matplotlib picture; nothing else imports matplotlib."""

from minisd.figures.path import path_map
from minisd.figures.pictures import picture_grid, sample_sheet
from minisd.figures.style import COLOURS, Figure, save
from minisd.figures.training import adherence_bars, guidance_curve, losses, stages

__all__ = ["COLOURS", "Figure", "adherence_bars", "guidance_curve", "losses", "path_map",
           "picture_grid", "sample_sheet", "save", "stages"]
