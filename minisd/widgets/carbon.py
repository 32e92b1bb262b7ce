"""The carbon calculator: power x time x overhead = energy, energy x grid = carbon dioxide.

The arithmetic of the Machine Learning Impact calculator (Lacoste et al. 2019), every factor in the
open. It counts what the machines draw while they compute: not their making, nor their use later.
"""

from collections.abc import Generator, Mapping

import ipywidgets
from matplotlib.ticker import FuncFormatter
from PIL import Image

from minisd.figures.charts import shade
from minisd.figures.style import as_picture, blank, house, printable
from minisd.widgets import knobs
from minisd.widgets.engine import Frame
from minisd.widgets.explorer import Explorer, Values, View

WATTS_PER_KILOWATT = 1000
CAR_KG_PER_KM = 0.25            # 400 g a mile, a typical passenger car (US EPA, 2023)
YOURS = "this calculation"
LEAST = 1e-9                    # kg: where the ruler begins at the utmost
WIDE = 760


def carbon_kg(watts: float, hours: float, kg_per_kwh: float, pue: float = 1.0) -> float:
    """Kilograms of CO2 equivalents.

    Args:
        watts: drawn by all machines together, or by one if `hours` are machine hours.
        kg_per_kwh: the grid's intensity, 0.02 (water, wind) to 1 (coal).
        pue: power usage effectiveness: what the whole building draws over what the machines draw.
    Raises ValueError for a negative factor, or a pue below 1.
    """
    if min(watts, hours, kg_per_kwh) < 0 or pue < 1:
        raise ValueError(f"expected watts, hours and kg_per_kwh of at least 0 and a pue of at "
                         f"least 1, got {watts}, {hours}, {kg_per_kwh} and {pue}")
    return watts / WATTS_PER_KILOWATT * hours * pue * kg_per_kwh


def carbon_calculator(compared: Mapping[str, float], *, watts: float = 250.0,
                      hours: float = 150_000.0, kg_per_kwh: float = 0.3) -> Explorer:
    """Four factors to turn, and their product beside the kilograms in `compared`."""

    def frames(at: Values) -> Generator[Frame, None, None]:
        kg = carbon_kg(at["watts"], at["hours"], at["kg_per_kwh"], at["pue"])
        yield Frame(1, 1, View(ruler({YOURS: kg, **compared}), in_digits(at, kg)))

    def number(name: str, value: float) -> ipywidgets.BoundedFloatText:
        return ipywidgets.BoundedFloatText(value, min=0, max=1e9, description=name,
                                           **knobs.COMMON)

    board = {"watts": number("Power, in W", watts), "hours": number("Time, in h", hours),
             "kg_per_kwh": knobs.slider("Grid, in kg/kWh", kg_per_kwh, 0.0, 1.2, 0.01),
             "pue": knobs.slider("Overhead (PUE)", 1.0, 1.0, 3.0, 0.05)}
    return Explorer("carbon calculator", board, frames, width=WIDE,
                    about="kilograms of carbon dioxide on a ruler of powers of ten")


def in_digits(at: Values, kg: float) -> str:
    """The product, factor by factor."""
    kwh = in_words(at["watts"] / WATTS_PER_KILOWATT * at["hours"] * at["pue"])
    return (f"{at['watts']:,g} W x {at['hours']:,g} h x {at['pue']:.2f} / 1,000 = {kwh} kWh\n"
            f"{kwh} kWh x {at['kg_per_kwh']:.2f} kg/kWh = {as_mass(kg)} CO2eq\n"
            f"A car that emits {CAR_KG_PER_KM} kg per km drives {in_words(kg / CAR_KG_PER_KM)} km "
            f"for it.")


def as_mass(kg: float) -> str:
    """Kilograms in a unit that leaves few digits."""
    for unit, size in (("t", 1e6), ("kg", 1.0), ("g", 1e-3), ("mg", 1e-6)):
        if kg >= size:
            value = kg / (1e3 if unit == "t" else size)
            return f"{in_words(value)} {unit}"
    return "0 kg" if kg == 0 else f"{kg:.1e} kg"


def in_words(value: float) -> str:
    """Whole numbers from 100 on, three digits below."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@house()
def ruler(masses: Mapping[str, float]) -> Image.Image:
    """A row for each mass, in kg, with a dot over a common scale of powers of ten."""
    figure = blank(0.5 * len(masses) + 0.7, 9.5)
    axes = figure.subplots()
    shown = [max(kg, LEAST) for kg in masses.values()]
    axes.set(xscale="log", xlim=(min(shown) / 3, 30 * max(shown)),
             ylim=(len(masses) - 0.5, -0.5))
    for y, (kg, at) in enumerate(zip(masses.values(), shown, strict=True)):
        colour = shade(0, ("time",) if y == 0 else ("noise",))
        axes.plot([min(shown) / 3, at], [y, y], color=colour)
        axes.plot([at], [y], "o", color=colour, markersize=11)
        axes.annotate(as_mass(kg), (at, y), (10, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(masses)), [printable(name, 40) for name in masses])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda kg, _: as_mass(float(kg))))
    axes.set_xticks([], minor=True)
    axes.grid(axis="y", visible=False)
    return as_picture(figure)
