"""What the job of a cluster runs in tests: `jaxsft/sweeps/cluster_worker.py` with a fake training,
and a cluster that is simulated by processes of this machine.
"""

from __future__ import annotations

from jaxsft.sweeps import cluster_worker, worker
from tests.sweeps import fake_worker


def run(*call) -> int:
    """Trains nothing, as the seeds say."""
    for name, fake in fake_worker.FAKES.items():
        setattr(worker, name, fake)
    return cluster_worker.run(*call)
