"""The carbon calculator."""

import pytest
from hands import ready, turn

from minisd.widgets import carbon_calculator, carbon_kg
from minisd.widgets.carbon import as_mass, ruler


@pytest.fixture
def calculator():
    with ready(carbon_calculator({"one flight": 500.0})) as widget:
        yield widget


def test_the_model_card_of_stable_diffusion() -> None:
    assert carbon_kg(250, 150_000, 0.30) == pytest.approx(11_250)
    assert carbon_kg(250, 150_000, 0.3678) == pytest.approx(13_792.5)
    assert carbon_kg(20, 2, 0.3, 1.5) == pytest.approx(0.018)
    for factors in ((-1, 1, 1, 1), (1, -1, 1, 1), (1, 1, -1, 1), (1, 1, 1, 0.9)):
        with pytest.raises(ValueError, match="a pue of at least 1"):
            carbon_kg(*factors)


def test_it_opens_with_the_card_and_shows_its_sum(calculator) -> None:
    assert calculator.seen.text == (
        "250 W x 150,000 h x 1.00 / 1,000 = 37,500 kWh\n"
        "37,500 kWh x 0.30 kg/kWh = 11,250 kg CO2eq\n"
        "A car that emits 0.25 kg per km drives 45,000 km for it.")


@pytest.mark.parametrize(("knob", "value", "said"), [
    ("watts", 400.0, "18,000 kg"), ("hours", 15.0, "1.12 kg"), ("kg_per_kwh", 0.5, "18,750 kg"),
    ("pue", 2.0, "22,500 kg"), ("hours", 0.0, "= 0 kg")])
def test_every_factor_counts(calculator, knob: str, value: float, said: str) -> None:
    assert said in turn(calculator, **{knob: value})


@pytest.mark.parametrize(("kg", "said"), [
    (0, "0 kg"), (2e-9, "2.0e-09 kg"), (5e-6, "5 mg"), (0.0126, "12.6 g"), (0.25, "250 g"),
    (1, "1 kg"), (11_250, "11,250 kg"), (13_792.5, "13,792 kg"), (2.5e6, "2,500 t")])
def test_masses_in_few_digits(kg: float, said: str) -> None:
    assert as_mass(kg) == said


@pytest.mark.parametrize("masses", [{"a": 0.0}, {"a": 1.0}, {"a": 1e-12, "b": 1e15},
                                    {"$x$" * 99: 1.0}])
def test_any_mass_can_be_drawn(masses) -> None:
    assert ruler(masses).width == 950
