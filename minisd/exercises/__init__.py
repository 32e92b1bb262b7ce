"""Checks of the notebooks' exercises: `check_...(your answer)` says what is right, or what is not.

An exercise that is not answered yet gets its hint; nothing here raises.
"""

from minisd.exercises.checking import Verdict

__all__ = ["Verdict"]
