"""The parent of a sweep makes its configs ready quickly, and without JAX."""

import subprocess
import sys


def test_configs_are_resolved_without_jax():
    out = subprocess.run(
        [sys.executable, "-m", "tools.bench.resolve", "seconds=1"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = {line[:28].strip(): float(line[28:].replace(",", "")) for line in out.splitlines()}
    assert found.pop("jax imported") == 0
    assert len(found) == 6
    assert all(rate >= 20 for name, rate in found.items() if name.endswith("resolved"))
