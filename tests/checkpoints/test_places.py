"""Where models lie: in a checkout, and where the package is installed."""

import sys
from pathlib import Path

import pytest

from minisd.checkpoints import places


def test_in_a_checkout() -> None:
    checkout = Path(places.__file__).parents[2] / "weights"
    found = places.WEIGHTS, places.SHIPPED
    assert found == (checkout, checkout / "toyworld")
    assert places.short(checkout / "a" / "b.ckpt") == "weights/a/b.ckpt"


@pytest.mark.parametrize(("system", "variables", "expected"), [
    ("linux", {}, "~/.local/share"), ("linux", {"XDG_DATA_HOME": "/data"}, "/data"),
    ("linux", {"XDG_DATA_HOME": "data"}, "~/.local/share"), ("freebsd14", {}, "~/.local/share"),
    ("darwin", {"XDG_DATA_HOME": "/data"}, "~/Library/Application Support"),
    ("win32", {}, "~/AppData/Local"), ("win32", {"LOCALAPPDATA": "/appdata"}, "/appdata")])
def test_where_the_package_is_installed(tmp_path, monkeypatch, system, variables, expected) -> None:
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": str(tmp_path)} | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(places, "CHECKOUT", tmp_path / "site-packages" / "weights")
    monkeypatch.setattr(places, "INSTALLED", tmp_path / "site-packages" / "minisd" / "shipped")
    places.INSTALLED.mkdir(parents=True)
    folder = Path(expected.replace("~", str(tmp_path))) / "minisd" / "weights"
    assert places.weights_folder() == folder
    assert places.shipped_folder() == places.INSTALLED
    monkeypatch.setattr(places, "WEIGHTS", folder)
    assert places.short(folder / "v1-5") == "weights/v1-5"
    assert places.short(tmp_path / "x.ckpt") == "~/x.ckpt"
