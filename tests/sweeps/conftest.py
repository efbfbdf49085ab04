"""What the tests of sweeps share: a folder to be in, and where workers run."""

from __future__ import annotations

import pytest

from jaxsft.sweeps import processes, sweep_parent
from tests.sweeps import sweeping


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory; workers of sweeps run in this process."""
    return sweeping.settle(tmp_path, monkeypatch)


@pytest.fixture
def real(place, monkeypatch):
    """As `place`, but workers are processes, which import this checkout."""
    monkeypatch.setattr(sweep_parent, "Child", processes.Child)
    return place
