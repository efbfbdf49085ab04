"""What the tests of sweeps share: workers that find this checkout."""

from __future__ import annotations

import pytest

from tests.sweeps import sweeping


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory, from which workers import this checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(sweeping.ROOT))
    return tmp_path
