"""The folder that peaks of memory are measured with is a model, and a peak is a number of bytes."""

import sys
from pathlib import Path

import pytest

from tests.hf.families import hf
from tools.bench import memory

SIZES = {
    "layers": 3,
    "embed": 16,
    "heads": 2,
    "kv_heads": 1,
    "head_dim": 8,
    "mlp": 32,
    "vocab": 272,
}


def test_the_folder_is_a_llama_in_shards(tmp_path):
    size = memory.write(tmp_path, SIZES, "bf16")
    model, params = hf.load(tmp_path, "lm")
    assert model.config.layers == 3 and params["layers"]["0"]["mlp"]["up"]["w"].shape == (3, 16, 32)
    assert len(list(tmp_path.glob("model-*.safetensors"))) == 4
    assert 2 * sum(w.size for w in hf.flatten(params).values()) == size


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak is read where Linux tells it"
)
def test_a_peak_is_that_of_the_process(tmp_path):
    small, large = (
        memory.peak(sys.executable, f"x = bytearray({n})\n{memory.PEAK}", tmp_path, 1)
        for n in (1, 10**8)
    )
    assert large - small > 9 * 10**7
