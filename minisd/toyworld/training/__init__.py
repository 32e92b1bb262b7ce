"""How toyworld's networks were trained; `python -m minisd.toyworld.train` does it again."""
