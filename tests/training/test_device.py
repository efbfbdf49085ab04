"""What the machine does with a run: FLOPs of the model against those that XLA counts, rates,
traces, kept programs.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxsft.config import schema
from jaxsft.config.durations import profile_steps
from jaxsft.data.records import LabelledText, Text
from jaxsft.data.tokenizers import learn
from jaxsft.errors import ConfigError
from jaxsft.rundir import read_jsonl
from jaxsft.sharding.weight_spec import WeightSpec
from jaxsft.sharding.weights import declare
from jaxsft.training import device, loop
from tests import conftest, tiny

ROOT = Path(__file__).parents[2]
WIDE = {
    "layers": 4,
    "embed": 64,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 16,
    "mlp": 128,
    "context": 64,
    "attention": "reference",
    "unroll": "full",
}


def bench(task, **train):
    """One text that fills its row, so that XLA computes nothing for padding."""
    text = "".join(chr(97 + i % 26) for i in range(61 if task == "classify" else 62))
    records = (
        [LabelledText(text + "ab"[i], None, conftest.LABELS[i]) for i in range(2)]
        if task == "classify"
        else [Text(text + "ab"[i]) for i in range(2)]
    )
    where = [f"rows.jsonl:{i + 1}" for i in range(2)]
    model = WIDE | ({"tied": False} if task == "lm" else {})
    return conftest.bench(
        task,
        records=(records, where),
        model=model,
        train={"batch_size": 2, **train},
        data={"max_length": 64},
        loss={"chunk": "none"} if task == "lm" else {},
    )


def counted(b):
    """FLOPs of loss and gradient as XLA's cost analysis counts them."""
    trained, frozen = b.apart
    gradient = lambda t, f, batch: b.program._gradient(
        b.state(t).replace(opt=None), f, batch, b.hyper, b.parts.task.totals(batch)
    )[0]
    return jax.jit(gradient).lower(trained, frozen, b.batches[0]).compile().cost_analysis()["flops"]


@pytest.mark.parametrize("task", ["classify", "lm"])
@pytest.mark.parametrize(
    "freeze",
    [(), ("embed/.*", "layers/[01]/.*"), ("layers/[01]/.*",)],
    ids=["all", "bottom frozen", "frozen above the embedding"],
)
def test_flops_of_the_model_are_those_that_are_computed(task, freeze):
    b = bench(task, freeze=list(freeze))
    lengths = b.batches.sizes(0)
    assert list(lengths) == [64, 64]
    ours = device.model_flops(b.config, b.parts.task, b.parts.specs, b.program.specs, lengths)
    if task == "lm":  # the reference computes what a causal mask hides
        layers, lowest = 4, 2 if freeze and "embed/.*" in freeze else 0
        ours += 4 * 64 * (2 * 64 * 64 - 2 * 64 * 65 // 2) * (layers + 2 * (layers - lowest))
    # norms, softmax, activations and the loss come on top
    assert counted(b) == pytest.approx(ours, rel=0.08)


@pytest.mark.parametrize(
    "freeze", [(), ("embed/.*", "layers/.*", "head/dense/.*")], ids=["all", "the matrix only"]
)
def test_flops_of_the_head_are_those_of_the_tokens_that_are_guessed(freeze, monkeypatch):
    """Of a large vocabulary, whose matrix is most of the model; two texts that fill their rows."""
    monkeypatch.setitem(conftest.TASKS, "mlm", schema.MLMTask)
    monkeypatch.setattr(
        conftest,
        "_tokenizer",
        lambda: learn.characters(["abcdefghijklmnopqrstuvwxyz"]).with_added(["<|mask|>"]),
    )
    records = ([Text("abcdefgh" * 7 + "abcdef" + x) for x in "ab"], ["rows.txt:1", "rows.txt:2"])
    model = WIDE | {"layers": 1, "embed": 32, "tied": False, "vocab_rows": 2000}
    task, loss = {"mask_token": "<|mask|>", "share": 0.25}, {"chunk": "none"}
    train = {"batch_size": 2, "freeze": list(freeze)}
    b = conftest.bench(
        "mlm",
        records=records,
        model=model,
        task=task,
        loss=loss,
        train=train,
        data={"packing": False},
    )
    lengths = b.batches.sizes(0)
    guessed = (b.batches[0].loss_weight > 0).sum()
    assert guessed == b.parts.task.head_uses(lengths) < lengths.sum() / 3
    # what the program has room for, which XLA counts
    places = 2 * b.parts.task.masking.most(b.batches[0].tokens.shape[1], 1)
    monkeypatch.setattr(b.parts.task, "head_uses", lambda lengths: places)
    assert counted(b) == pytest.approx(
        device.model_flops(b.config, b.parts.task, b.parts.specs, b.program.specs, lengths), rel=0.1
    )


def test_twice_the_text_is_twice_the_products_and_four_times_the_attention():
    b = bench("classify")
    flops = lambda *n: device.model_flops(
        b.config, b.parts.task, b.parts.specs, b.program.specs, np.array(n)
    )
    attention = 3 * 4 * 4 * 64
    # one pooled text less, of two classes
    assert flops(128) - flops(64, 64) == pytest.approx(attention * 2 * 64**2 - 3 * 2 * 64 * 2)
    assert flops(10, 20) == pytest.approx(flops(10) + flops(20))


def test_rates_leave_pauses_out(monkeypatch):
    clock = iter([0.0, 2.0, 100.0, 102.0, 102.0])
    monkeypatch.setattr(device.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(device, "peak_flops", lambda d: 50.0)
    meter = device.Meter(np.array([None, None]))
    meter.resume()
    meter.add(100, 120.0)
    meter.pause()
    meter.resume()
    meter.add(100, 120.0)
    assert meter.read() == {"tokens_per_second": 50.0, "model_flops_per_second": 60.0, "mfu": 0.6}


@pytest.mark.parametrize(
    "kind, peak",
    [
        ("TPU v5 lite", 197e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("cpu", None),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L4", 121e12),
        ("TPU v4", 275e12),
        ("NVIDIA A10", None),
    ],
)
def test_peaks(kind, peak):
    assert device.peak_flops(type("Device", (), {"device_kind": kind})) == peak


@pytest.mark.parametrize("text", ["10-15", "steps:0-3", "steps:5-4", "steps:a-b", "epochs:1-2", ""])
def test_other_profiles_are_refused(text):
    with pytest.raises(ConfigError, match="steps:FIRST-LAST"):
        profile_steps(text)


def test_rates_are_counted_and_programs_are_kept(tmp_path):
    files, place = tiny.data(tmp_path), str(jax.config.jax_compilation_cache_dir)
    train = {"duration": "4steps", "batch_size": 4, "log_every": "2steps"}
    options = {"task": "classify", "train": train, "compilation_cache": str(tmp_path / "programs")}
    try:
        loop.train(tiny.config(files, tmp_path / "run", **options))
        assert list((tmp_path / "programs").iterdir())
        rows = [
            row for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "train"
        ]
        assert (
            all(row["model_flops_per_second"] > 0 and row["mfu"] == "unknown" for row in rows)
            and len(rows) == 2
        )
        with pytest.raises(ConfigError, match="training has 4 steps only"):
            loop.train(tiny.config(files, tmp_path / "short", profile="steps:2-5", **options))
    finally:
        device.compilation_cache.reset_cache()
        jax.config.update("jax_compilation_cache_dir", place)


# In a process of its own: another test may have loaded the compiler for TPU into this one.
TRACED = """
import pathlib, sys
from tests import tiny
from jaxsft.errors import ConfigError
from jaxsft.training import device, loop
place = pathlib.Path(sys.argv[1])
train = {"duration": "3steps", "batch_size": 4}
loop.train(tiny.config(place, place / "run", task="classify", train=train, profile="steps:2-3"))
print([p.suffix for p in (place / "run" / "profile").rglob("*.xplane.pb")])
try:
    import libtpu
except ImportError:
    sys.exit()
import ctypes
ctypes.CDLL(libtpu.get_library_path())
try:
    device.ProfileTrace("steps:2-3", place, 3)
except ConfigError as e:
    print(e)
"""


def test_a_run_is_traced_but_not_beside_the_compiler_for_tpu(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", TRACED, str(tiny.data(tmp_path))],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "['.pb']" in ran.stdout
    assert importlib.util.find_spec("libtpu") is None or "in another process" in ran.stdout


def test_programs_are_kept_where_jax_or_the_user_says(monkeypatch):
    told = []
    monkeypatch.setattr(device.jax.config, "update", lambda name, value: told.append(value))
    device.keep_programs("none")
    device.keep_programs("auto")  # the tests set JAX_COMPILATION_CACHE_DIR
    assert not told and schema.Config().compilation_cache == "auto"


def test_the_last_call_of_a_process_says_where_programs_are_kept(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(device.cache, "root", lambda folder: tmp_path / "user")
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        for folder, place in (
            ("none", None),
            (str(tmp_path / "a"), "a"),
            ("none", None),
            ("auto", "user"),
            (str(tmp_path / "b"), "b"),
            ("auto", "user"),
        ):
            device.keep_programs(folder)
            now = jax.config.jax_compilation_cache_dir
            assert (
                (now is None)
                if place is None
                else (
                    now == str(tmp_path / place)
                    or now.startswith(str(tmp_path / place / "programs"))
                )
            )
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
        for folder in ("auto", str(tmp_path / "a"), "none", "auto"):
            device.keep_programs(folder)
            assert jax.config.jax_compilation_cache_dir == str(
                tmp_path / ("a" if folder.endswith("a") else "theirs")
            )
    finally:
        device.compilation_cache.reset_cache()
        jax.config.update("jax_compilation_cache_dir", before)


class Limited:
    """A device that tells how much memory it has; 0: nothing."""

    def __init__(self, limit, process_index=0):
        self.limit, self.process_index = limit, process_index

    def memory_stats(self):
        assert self.process_index == 0, "another process's device tells nothing"
        return {"bytes_limit": self.limit} if self.limit else None


def test_weights_that_cannot_fit_are_refused_before_they_are_made():
    """On accelerators together they must be, on a CPU in the memory of the machine."""
    specs = {"mlp": {"up": WeightSpec((4, 250_000), np.dtype("float32"), ("embed", "mlp"))}}
    apart = [Limited(2_000_000), Limited(0, process_index=1)]
    for fits in ([Limited(4_000_000)], [Limited(3_000_000)] * 2, apart, [Limited(0)]):
        device.check_weights(specs, fits)
    with pytest.raises(ConfigError, match=r"mlp/up, is \[4, 250000\]; set less of model"):
        device.check_weights(specs, [Limited(3_999_999)])
    specs["mlp"]["up"] = WeightSpec((2**31 - 1, 2**20), np.dtype("float32"), ("embed", "mlp"))
    with pytest.raises(ConfigError, match=r"need 9,007,199\.3 GB"):
        device.check_weights(specs, [Limited(0)])


def test_a_size_that_no_id_could_reach_is_refused_where_the_weight_is_declared():
    table = declare(jax.nn.initializers.normal(), ("positions", "embed"))
    with pytest.raises(ConfigError, match="positions x embed would be 2147483649 x 8"):
        jax.eval_shape(lambda key: table(key, (2**31 + 1, 8)), jax.random.key(0))


def test_a_step_that_cannot_fit_is_refused_before_it_runs():
    """Needed are arguments and temporaries; the state's result lies where it lay."""
    x = jax.ShapeDtypeStruct((256, 256), np.float32)
    step = jax.jit(lambda x, y: (x + y @ y, y.sum()), donate_argnums=0)
    compiled = step.lower(x, x).compile()
    needed = 2 * 256 * 256 * 4
    for fits in (0, 4 * needed):
        device.check_memory(compiled, [Limited(fits)])
    with pytest.raises(ConfigError, match=r"model\.remat=true.*mesh\.fsdp.*jaxsft plan"):
        device.check_memory(compiled, [Limited(needed - 1)])
