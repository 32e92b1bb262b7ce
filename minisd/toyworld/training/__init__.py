"""How toyworld's networks were trained; `python -m minisd.toyworld.training` does it again."""
