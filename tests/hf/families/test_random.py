"""Models of random shapes and options, written by transformers itself, against transformers
(jaxsft[torch]): alone, packed, decoded, written back, and one step of training.
"""

from __future__ import annotations

import pytest

from tools import parity
from tools.draws import DRAWS

pytestmark = pytest.mark.slow
pytest.importorskip("transformers")
pytest.importorskip("torch")


@pytest.mark.parametrize("name", DRAWS)
def test_random_models_agree(name, tmp_path, record_property):  # guards G9
    """More seeds: `python -m tools.parity seeds=9`."""
    found = parity.compare(name, 0, tmp_path)
    record_property("difference", found.alone)
    assert not found.over(), found
