"""The carbon calculator, without a browser."""

import re

import pytest

from minisd.widgets import carbon_calculator, carbon_kg
from minisd.widgets.carbon import as_mass, ruler
from minisd.widgets.pictures import VIEW

SOON = 300.0        # seconds for what takes milliseconds when the machine is free


@pytest.fixture
def calculator():
    widget = carbon_calculator({"one flight": 500.0})
    assert widget.engine.wait(SOON)
    yield widget
    widget.view.close()


def test_the_model_card_of_stable_diffusion() -> None:
    assert carbon_kg(250, 150_000, 0.30) == pytest.approx(11_250)
    assert carbon_kg(250, 150_000, 0.3678) == pytest.approx(13_792.5)
    assert carbon_kg(20, 2, 0.3, 1.5) == pytest.approx(0.018)


@pytest.mark.parametrize("factors", [(-1, 1, 1, 1), (1, -1, 1, 1), (1, 1, -1, 1), (1, 1, 1, 0.9)])
def test_impossible_factors_are_refused(factors) -> None:
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
def test_every_knob_changes_sum_and_picture(calculator, knob, value, said) -> None:
    before = calculator.seen.picture.tobytes()
    calculator.knobs[knob].value = value
    assert calculator.engine.wait(SOON) and calculator.engine.error is None
    assert said in calculator.seen.text
    assert calculator.seen.picture.tobytes() != before
    alt = re.search('alt="([^"]*)"', calculator.picture.value)[1]
    assert f"{knob.replace('_', ' ')} {value}" in alt


def test_on_paper_there_is_a_picture(calculator) -> None:
    data, _ = calculator._repr_mimebundle_()
    assert {VIEW, "image/png"} <= set(data)


@pytest.mark.parametrize(("kg", "said"), [
    (0, "0 kg"), (2e-9, "2.0e-09 kg"), (5e-6, "5 mg"), (0.0126, "12.6 g"), (0.25, "250 g"),
    (1, "1 kg"), (11_250, "11,250 kg"), (13_792.5, "13,792 kg"), (2.5e6, "2,500 t")])
def test_masses_in_few_digits(kg, said) -> None:
    assert as_mass(kg) == said


def dot(picture, row: int) -> int:
    """The column in which a row's dot is, in pixels."""
    from minisd.widgets.carbon import LEFT, MARGIN, ROW
    y = MARGIN // 2 + ROW * row + ROW // 2 + 10         # above and below the line there is the dot
    columns = [x for x in range(LEFT - 20, picture.width)
               if picture.getpixel((x, y)) not in ((255, 255, 255), (216, 216, 216))]
    return columns[0]


def test_ten_times_as_much_is_one_step_to_the_right() -> None:
    picture = ruler({"a": 3.0, "b": 30.0, "c": 300.0})
    a, b, c = (dot(picture, row) for row in range(3))
    assert a < b < c and abs((c - b) - (b - a)) <= 2


@pytest.mark.parametrize("masses", [{"a": 0.0}, {"a": 1.0}, {"a": 1e-12, "b": 1e15}])
def test_any_mass_can_be_drawn(masses) -> None:
    assert ruler(masses).width
