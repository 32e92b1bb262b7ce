"""Things to move in a notebook. The one place that imports ipywidgets."""

from minisd.widgets.examples import Examples, examples
from minisd.widgets.playground import Playground, playground

__all__ = ["Examples", "Playground", "examples", "playground"]
