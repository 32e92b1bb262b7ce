"""How well toyworld paints; `python -m minisd.toyworld.evaluation` measures it."""
