"""Things to move in a notebook. The one place that imports ipywidgets."""

try:
    import ipywidgets  # noqa: F401
except ImportError as error:
    raise ImportError("widgets are made of ipywidgets, which is not installed: run `python -m "
                      "pip install matplotlib jupyterlab ipywidgets` (minisd's extra [notebooks])"
                      ) from error

from minisd.observe.tokens import word_tokens
from minisd.widgets.attention import attention_explorer
from minisd.widgets.comparison import prompt_comparison, word_changes
from minisd.widgets.curve import curve_explorer
from minisd.widgets.editor import editor
from minisd.widgets.examples import Examples, examples
from minisd.widgets.lab import guidance_lab
from minisd.widgets.noise import noise_slider
from minisd.widgets.playground import Playground, playground
from minisd.widgets.replay import step_scrubber, trajectory_map
from minisd.widgets.search import picture_search
from minisd.widgets.skips import skip_explorer
from minisd.widgets.tokens import token_explorer
from minisd.widgets.vae import vae_explorer

__all__ = ["Examples", "Playground", "attention_explorer", "curve_explorer", "editor", "examples",
           "guidance_lab", "noise_slider", "picture_search", "playground", "prompt_comparison",
           "skip_explorer", "step_scrubber", "token_explorer", "trajectory_map", "vae_explorer",
           "word_changes", "word_tokens"]
