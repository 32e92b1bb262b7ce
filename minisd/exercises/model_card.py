"""Exercises on the model card: how many pictures a training took, and its carbon dioxide."""

from minisd.exercises.checking import Check


def carbon_kg(watts: float, hours: float, kg_per_kwh: float, pue: float = 1.0) -> float:
    """Kilograms of CO2 equivalents, as in Lacoste et al. 2019.

    watts: drawn by all machines together, or by one where `hours` are machine hours. kg_per_kwh:
    of the grid, 0.02 (water, wind) to 1 (coal). pue: power usage effectiveness, what the whole
    building draws over what the machines draw. Raises ValueError for a negative factor, or a pue
    below 1.
    """
    if min(watts, hours, kg_per_kwh) < 0 or pue < 1:
        raise ValueError(f"expected watts, hours and kg_per_kwh of at least 0 and a pue of at "
                         f"least 1, got {watts}, {hours}, {kg_per_kwh} and {pue}")
    return watts / 1000 * hours * pue * kg_per_kwh


check_samples_seen = Check(
    "my_samples_seen(machines, gpus, accumulate, per_gpu, steps)", "returns how many pictures",
    cases=[(32, 8, 2, 4, 10), (3, 5, 7, 11, 13)], tolerance=1e-9,
    mistakes={
        "That is one gradient step.": (" * steps", ""),
        "A step adds up `accumulate` batches.": ("accumulate * ", ""),
        "All GPUs of all machines work on pictures of their own: machines * gpus.":
            [("machines * ", ""), ("gpus * ", "")]},
    hints=("how many pictures does one gradient step take?",
           "every GPU of every machine takes per_gpu pictures, accumulate times a step."),
    solution="return machines * gpus * `accumulate` * per_gpu * `steps`")

check_carbon = Check(
    "my_carbon(watts, hours, kg_per_kwh, pue)", "returns kilograms of carbon dioxide",
    right=carbon_kg,
    cases=[(250.0, 150_000.0, 0.3, 1.1), (20.0, 3.0, 0.45, 1.5)],
    mistakes={
        "A kilowatt is 1000 watts: divide.": (" / 1000", ""),
        "The building draws more, by pue.": (" * pue", ""),
        "That is energy. Multiply by kg per kWh.": (" * kg_per_kwh", "")},
    hints=("first the energy in kWh, then its carbon dioxide.",
           "kilowatts times hours times pue; then the grid's kg per kWh."),
    solution="return watts / `1000` * hours * `pue` * kg_per_kwh")
