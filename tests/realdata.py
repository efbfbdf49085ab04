"""Real data for tests: in the folder that JAXSFT_DATA names, or in shared/data beside the
repository. A test that finds none skips.
"""

import os
from pathlib import Path

import pytest


def real(path: str) -> Path:
    """The path of a real file or folder, such as `banking77/train.csv`; skips the test, by name,
    where it is absent.
    """
    folder = Path(
        os.environ.get("JAXSFT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    )
    if not (folder / path).exists():
        pytest.skip(f"no real data {path}: set JAXSFT_DATA to the folder that holds it")
    return folder / path
