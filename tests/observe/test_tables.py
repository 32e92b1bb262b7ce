"""Tables as text."""

from minisd.observe.tables import aligned


def test_names_stand_on_the_left_numbers_on_the_right() -> None:
    rows = [("name", "n", "kind"), ("a", 5, "x"), ("longer", 1000, "yes")]
    assert aligned(rows, left=(0, 2)).splitlines() == [
        "name        n  kind", "a           5  x", "longer  1,000  yes"]
