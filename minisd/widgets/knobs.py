"""The knobs of widgets: sliders, text fields, choices, buttons, all of one form."""

from collections.abc import Sequence
from typing import Any

import ipywidgets

from minisd.settings import check

COMMON: dict[str, Any] = {"style": {"description_width": "10em"}, "layout": {"width": "auto"}}


def slider(name: str, value: float, low: float, high: float, step: float = 1
           ) -> ipywidgets.IntSlider | ipywidgets.FloatSlider:
    """Integers stay integers."""
    whole = all(isinstance(number, int) for number in (value, low, high, step))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return kind(value, min=low, max=high, step=step, description=name, **COMMON,
                **({} if whole else {"readout_format": ".2f" if step < 0.1 else ".1f"}))


def words(name: str, value: str, *, live: bool = False) -> ipywidgets.Text:
    return ipywidgets.Text(value, description=name, continuous_update=live, **COMMON)


def choice(name: str, options: Sequence[Any], value: Any = None) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(options=list(options), description=name, **COMMON,
                               **({} if value is None else {"value": value}))


def buttons(name: str, options: Sequence[Any], value: Any) -> ipywidgets.ToggleButtons:
    return ipywidgets.ToggleButtons(
        options=list(options), value=value, description=name, layout={"width": "auto"},
        style={"description_width": "10em", "button_width": "auto"})


def seed_of(text: str) -> int:
    """A seed as it is typed: a text field holds all of them, a number field only some."""
    try:
        return check("seed", int(text))
    except ValueError as error:
        raise ValueError(f"a seed is a whole number from 0 to {2 ** 63 - 1:,}, got "
                         f"{text!r}") from error
