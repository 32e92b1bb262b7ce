"""The carbon calculator: power x time x overhead = energy, energy x grid = carbon dioxide.

The arithmetic of the Machine Learning Impact calculator (Lacoste et al. 2019), every factor in the
open. It counts what the machines draw while they compute: not their making, nor their use later.
"""

import math
from collections.abc import Generator, Mapping

import ipywidgets
from PIL import Image, ImageDraw, ImageFont

from minisd.widgets.engine import Frame
from minisd.widgets.explorer import Explorer, Values, View
from minisd.widgets.pictures import COLOURS

WATTS_PER_KILOWATT = 1000
CAR_KG_PER_KM = 0.25            # 400 g a mile, a typical passenger car (US EPA, 2023)
YOURS = "this calculation"
# Scale of the drawing, which is shown at half its size.
WIDTH, ROW, LEFT, MARGIN, LETTERS = 1480, 84, 460, 60, 30
LEAST, MOST = -9, 12            # powers of ten, in kg, that a ruler reaches at the utmost
WORST_PUE, DIRTIEST = 3.0, 1.2  # ends of the sliders
STYLE = {"description_width": "16em"}
FULL = {"width": "auto"}


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
        picture = ruler({YOURS: kg, **compared})
        yield Frame(1, 1, View(picture, in_digits(at, kg)))

    knobs = {
        "watts": ipywidgets.BoundedFloatText(watts, min=0, max=1e9, description="Power, in W",
                                             style=STYLE, layout=FULL),
        "hours": ipywidgets.BoundedFloatText(hours, min=0, max=1e9, description="Time, in h",
                                             style=STYLE, layout=FULL),
        "kg_per_kwh": ipywidgets.FloatSlider(kg_per_kwh, min=0, max=DIRTIEST, step=0.01,
                                             description="Grid, in kg/kWh", style=STYLE,
                                             layout=FULL),
        "pue": ipywidgets.FloatSlider(1, min=1, max=WORST_PUE, step=0.05, style=STYLE, layout=FULL,
                                      description="Building's overhead (PUE)")}
    return Explorer("carbon calculator", knobs, frames, width=WIDTH // 2,
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


def ruler(masses: Mapping[str, float]) -> Image.Image:
    """A row for each mass, in kg, with a dot over a common scale of powers of ten."""
    powers = [math.log10(kg) for kg in masses.values() if kg > 0]
    low = max(LEAST, math.floor(min(powers, default=0)))
    high = min(MOST, max(math.ceil(max(powers, default=1)), low + 1))
    height = ROW * len(masses) + 2 * MARGIN
    paper = Image.new("RGB", (WIDTH, height), COLOURS["paper"])
    pen, font = ImageDraw.Draw(paper), ImageFont.load_default(LETTERS)
    room = WIDTH - LEFT - 4 * MARGIN            # the value of the largest stands at the right

    def place(power: float) -> float:
        return LEFT + room * (min(max(power, low), high) - low) / (high - low)

    every = math.ceil((high - low) / 6)
    for power in range(low, high + 1):
        pen.line([(place(power), MARGIN // 2), (place(power), height - MARGIN)], "#D8D8D8", 2)
        if (power - low) % every == 0:
            pen.text((place(power), height - MARGIN + 8), as_mass(10.0 ** power),
                     COLOURS["ink"], font, anchor="ma")
    for row, (name, kg) in enumerate(masses.items()):
        y, colour = MARGIN // 2 + ROW * row + ROW // 2, COLOURS["time" if row == 0 else "noise"]
        x = place(math.log10(kg)) if kg > 0 else LEFT
        pen.text((LEFT - 24, y), name, COLOURS["ink"], font, anchor="rm")
        pen.line([(LEFT, y), (x, y)], colour, 6)
        pen.ellipse((x - 14, y - 14, x + 14, y + 14), fill=colour)
        pen.text((x + 26, y), as_mass(kg), COLOURS["ink"], font, anchor="lm", stroke_width=6,
                 stroke_fill=COLOURS["paper"])
    return paper
