"""How well toyworld paints; `python -m minisd.toyworld.evaluate` measures it."""
