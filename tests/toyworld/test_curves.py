"""The thinned curves of a training, as they ship."""

from pathlib import Path

from minisd.checkpoints.places import SHIPPED
from minisd.toyworld.training import curves
from minisd.toyworld.training.recipe import RECIPE, Part

HEADER = "step,loss,lr,images_per_second\n"
PART = Part(steps=10, batch=4, lr=0.1, accumulate=2)


def metrics(folder: Path, text: str):
    path = folder / "vae.csv"
    path.write_text(HEADER + text)
    return curves.read_metrics(path)


def test_repeated_steps_count_once_and_broken_lines_not_at_all(tmp_path) -> None:
    found = metrics(tmp_path, "1,5,1,8\n2,4,1,8\n3,2,1\n2,4,1,8\n3,x,1,8\n4,1,1,4\n")
    assert found["step"].tolist() == [1, 2, 4] and found["loss"].tolist() == [5, 4, 1]
    assert metrics(tmp_path, "") == {}


def test_a_window_is_the_mean_of_its_steps(tmp_path) -> None:
    found = metrics(tmp_path, "".join(f"{i},{i},0.5,{8 if i < 5 else 4}\n" for i in range(1, 9)))
    assert curves.thinned(found, PART, points=4) == {
        "samples_per_step": 8, "seconds": 4 + 8, "step": [2, 4, 6, 8],
        "loss": [1.5, 3.5, 5.5, 7.5], "lr": [0.5] * 4}
    assert curves.thinned(found, PART, points=100)["step"] == list(range(1, 9))


def test_export_keeps_curves_of_parts_trained_elsewhere(tmp_path) -> None:
    metrics(tmp_path, "1,5,1,16\n2,4,1,16\n")
    (tmp_path / "judge.csv").write_text(HEADER)             # begun, no more
    (tmp_path / curves.FILE).write_text('{"judge": {"step": [1]}, "vae": {"step": [9]}}')
    curves.export(tmp_path, RECIPE, tmp_path)
    found = curves.read(tmp_path / curves.FILE)
    assert found["judge"] == {"step": [1]} and found["vae"]["step"] == [1, 2]
    assert found["vae"]["samples_per_step"] == RECIPE.vae.batch * RECIPE.vae.accumulate


def test_the_shipped_curves_are_whole() -> None:
    for name, part in curves.read(SHIPPED / curves.FILE).items():
        assert name.removeprefix("first ").removeprefix("second ") in vars(RECIPE)
        assert all(len(values) == len(part["step"]) for values in part.values()
                   if isinstance(values, list))
        assert part["step"] == sorted(part["step"])
