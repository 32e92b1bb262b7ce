"""Every matplotlib picture; nothing else imports matplotlib."""

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError("figures are drawn by matplotlib, which is not installed: run `python -m "
                      "pip install matplotlib jupyterlab ipywidgets` (minisd's extra [notebooks])"
                      ) from error

from minisd.figures.attention import (
    heat_grid,
    lit_pictures,
    removal,
    scale_needed,
    word_effects,
    word_maps_sheet,
)
from minisd.figures.backward import approach_curves, strength_curve, trajectory_maps
from minisd.figures.evaluation import cloud_pairs, floor_curve, rate_intervals
from minisd.figures.features import along_the_u, feature_maps, skip_bars, time_waves, told_times
from minisd.figures.guidance import guided_values, impact_curves, noise_maps
from minisd.figures.latents import posterior_maps, reconstruction, signed_maps
from minisd.figures.networks import Station, array_sizes, layer_counts, parameter_bars, stations
from minisd.figures.path import path_map
from minisd.figures.pictures import picture_grid, sample_sheet
from minisd.figures.recipe import Stretch, lineage, share_bars, training_curves
from minisd.figures.sampling import coefficient_curves, convergence, distance_curves, point_travels
from minisd.figures.schedule import loss_by_timestep, point_clouds, point_paths, schedule_curves
from minisd.figures.style import COLOURS, Figure, save
from minisd.figures.text import (
    activations,
    labelled_matrix,
    likeness,
    place_bars,
    ranking,
    token_chips,
    token_places,
    vector_maps,
)
from minisd.figures.training import adherence_bars, guidance_curve, losses, stages
from minisd.figures.unet import unet_costs, unet_map

__all__ = ["COLOURS", "Figure", "Station", "Stretch", "activations", "adherence_bars",
           "along_the_u", "approach_curves", "array_sizes", "cloud_pairs", "coefficient_curves",
           "convergence", "distance_curves", "feature_maps", "floor_curve", "guidance_curve",
           "guided_values", "heat_grid", "impact_curves", "labelled_matrix", "layer_counts",
           "likeness", "lineage", "lit_pictures", "loss_by_timestep", "losses", "noise_maps",
           "parameter_bars", "path_map", "picture_grid", "place_bars", "point_clouds",
           "point_paths", "point_travels", "posterior_maps", "ranking", "rate_intervals",
           "reconstruction", "removal", "sample_sheet", "save", "scale_needed", "schedule_curves",
           "share_bars", "signed_maps", "skip_bars", "stages", "stations", "strength_curve",
           "time_waves", "token_chips", "token_places", "told_times", "training_curves",
           "trajectory_maps", "unet_costs", "unet_map", "vector_maps", "word_effects",
           "word_maps_sheet"]
