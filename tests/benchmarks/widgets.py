"""How soon toyworld's widgets answer a move: milliseconds to the first picture and to the last.

    python tests/benchmarks/widgets.py [--moves 7]

Counted from the moment when the worker takes the request, as the design has it: 100 ms and 1 s.
The way to the screen comes on top and is the browser's (some 30 to 70 ms). The step scrubber is
not here: it asks no kernel.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import ipywidgets

import minisd
from minisd.widgets import (
    attention_explorer,
    editor,
    examples,
    guidance_lab,
    noise_slider,
    prompt_comparison,
    trajectory_map,
    vae_explorer,
)
from minisd.widgets.engine import Engine, Frame

PATIENCE = 120.0                # seconds for one answer


class Watched:
    """An engine whose work is timed: `first` and `last`, in milliseconds, of its last request."""

    def __init__(self, engine: Engine) -> None:
        self.engine, work, show = engine, engine.work, engine.show
        self.began = self.first = self.last = 0.0

        def timed(request: Any) -> Iterator[Frame]:
            self.began, self.first = time.perf_counter(), 0.0
            yield from work(request)

        def shown(request: Any, frame: Frame) -> None:
            show(request, frame)
            self.last = 1000 * (time.perf_counter() - self.began)
            self.first = self.first or self.last

        engine.work, engine.show = timed, shown     # type: ignore[assignment]


def moves(slider: ipywidgets.Widget, count: int) -> Iterator[Any]:
    """So many other values of a slider or a choice, none of them twice."""
    if hasattr(slider, "options"):
        yield from [o[1] if isinstance(o, tuple) else o for o in slider.options
                    if (o[1] if isinstance(o, tuple) else o) != slider.value][:count]
        return
    low, high, step = slider.min, slider.max, slider.step
    places = int(round((high - low) / step)) + 1
    values = [type(slider.value)(low + step * round(i * (places - 1) / (count + 1)))
              for i in range(count + 2)]
    yield from list(dict.fromkeys(v for v in values if v != slider.value))[:count]


def measure(name: str, widget: Any, count: int) -> None:
    """A line for each knob that is a slider or a choice."""
    widget.engine.wait(PATIENCE)
    watched = Watched(widget.engine)
    for key, knob in widget.knobs.items():
        if not (hasattr(knob, "min") or hasattr(knob, "options")):
            continue
        answers, start = [], knob.value
        for value in moves(knob, count):
            before = watched.began
            knob.value = value
            assert widget.engine.wait(PATIENCE), f"{name}: no answer in {PATIENCE} s"
            if watched.began != before:             # else shown from memory
                answers.append((watched.first, watched.last))
        knob.value = start
        widget.engine.wait(PATIENCE)
        if answers:
            first, last = zip(*answers, strict=True)
            print(f"{name:20} {key:12} {len(answers):2}  first {statistics.median(first):5.0f} "
                  f"({max(first):5.0f})  last {statistics.median(last):5.0f} ({max(last):5.0f})")
    widget.engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=7, help="of every knob")
    count = parser.parse_args().moves
    sd = minisd.load("toyworld")
    words = examples("toyworld")
    picture = sd.text_to_image(words.prompt, seed=words.seed)[0]
    traces = {f"seed {seed}": sd.trace(words.prompt, seed=seed, steps=12) for seed in (1, 2, 3)}
    made: dict[str, Callable[[], Any]] = {
        "guidance lab": lambda: guidance_lab(sd),
        "prompt comparison": lambda: prompt_comparison(sd),
        "editor": lambda: editor(sd, picture),
        "noise slider": lambda: noise_slider(sd, picture),
        "VAE explorer": lambda: vae_explorer(sd, {"painted": picture}),
        "attention explorer": lambda: attention_explorer(sd),
        "trajectory map": lambda: trajectory_map(traces)}
    print("median (largest) milliseconds to the first and to the last picture after a move")
    for name, make in made.items():
        measure(name, make(), count)


if __name__ == "__main__":
    main()
