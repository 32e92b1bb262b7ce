"""Every matplotlib picture; nothing else but the widgets imports matplotlib.

`picture_grid`, `maps`, `lines`, `bars`, `points` and `matrix` are the vocabulary of most cells; the
others draw one thing each. A plot that a single cell needs begins with `house` and `blank`.
"""

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError("figures are drawn by matplotlib, which is not installed: run `python -m "
                      "pip install matplotlib jupyterlab ipywidgets` (minisd's extra [notebooks])"
                      ) from error

from minisd.figures.charts import bars, legend, lines, matrix, points
from minisd.figures.measured import guidance_curve, rate_intervals, training_curves
from minisd.figures.networks import unet_map, vae_map
from minisd.figures.path import path_map
from minisd.figures.pixels import lit, magnitude, signed
from minisd.figures.runs import trajectory_maps
from minisd.figures.style import COLOURS, Figure, bare, blank, entitle, house, percent, save
from minisd.figures.text import place_bars, token_chips
from minisd.figures.tiles import Tile, maps, picture_grid, sample_sheet, stations

__all__ = ["COLOURS", "Figure", "Tile", "bare", "bars", "blank",
           "entitle", "guidance_curve", "house", "legend", "lines", "lit",
           "magnitude", "maps", "matrix", "path_map", "percent", "picture_grid", "place_bars",
           "points", "rate_intervals", "sample_sheet", "save", "signed", "stations",
           "token_chips", "training_curves", "trajectory_maps", "unet_map", "vae_map"]
