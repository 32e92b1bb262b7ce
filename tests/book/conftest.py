"""The tests of what stands directly in minisd/: `python -m pytest -m book`."""

from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)             # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and not item.get_closest_marker("slow"):
            item.add_marker("book")
