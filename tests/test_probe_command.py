"""`jaxsft probe`: learning rates as one program, the noise of the gradient, rows that fit."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from jaxsft.config.schema import Config
from jaxsft.errors import ConfigError
from jaxsft.planning import batch_finder
from jaxsft.rundir import read_json
from jaxsft.training import noise_scale, rate_range
from tests import tiny
from tests.compilations import compilations

TINY = [
    *("task=classify", "model.layers=1", "model.embed=8", "model.heads=1", "model.kv_heads=1"),
    *("model.head_dim=8", "model.mlp=16", "model.dropout=0", "precision=fp32", "mesh.data=1"),
    *("data.packing=false", "train.batch_size=8"),
]
WORDS = ("bad worse", "good")
PNG = b"\x89PNG"


def rows(folder, alike: bool) -> str:
    """Forty texts with labels; all alike, or all different."""
    lines = ["text,label"]
    for i in range(40):
        lines.append("one two,0" if alike else f"{WORDS[i % 2]} {i},{i % 2}")
    if alike:
        lines[-1] = "one two,1"  # a second label there must be
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    return f"data.train={folder / 'rows.csv'}"


def test_many_rates_are_one_program_and_one_of_them_is_suggested(tmp_path):
    given = [*TINY, rows(tmp_path, False), f"probe.output={tmp_path / 'out'}", "probe.low=1e-4"]
    with compilations() as compiled:
        code, out, err = tiny.jaxsft(
            "probe", "rates", *given, "probe.high=1e14", "probe.count=7", "probe.steps=12"
        )
    assert code == 0, err
    assert compiled.count("step") == 1
    found = read_json(tmp_path / "out" / "rates.json")
    assert out.splitlines()[-1] == f"override: {found['override']}"
    rate = float(found["override"].removeprefix("optim.learning_rate="))
    losses = np.array(found["losses"], float)
    assert losses.shape == (12, 7) and 1e-4 <= rate < 1e6
    # before the first step all are alike; a thousand millions are too many
    assert np.ptp(losses[0]) < 1e-5 and not losses[-1, -1] < losses[0, 0]
    assert (tmp_path / "out" / "rates.png").read_bytes().startswith(PNG)


def test_where_no_rate_helps_this_is_told():
    flat = rate_range.RateRange(np.array([1e-3, 1e-2]), np.ones((3, 2)))
    with pytest.raises(Exception, match=r"no rate from 0\.001 to 0\.01 lowers the loss in 3 steps"):
        flat.suggested()


def test_the_noise_scale_is_that_of_simulated_gradients():
    """A mean gradient of square norm 1, and rows with a variance of 2 in each of 30 directions."""
    rng, b, B, batches = np.random.default_rng(0), 8, 32, 3000
    mean = np.ones(30) / math.sqrt(30)
    parts = mean + rng.normal(size=(batches, B // b, 30)) * math.sqrt(2 / b)
    small = (parts**2).sum(-1).mean(1)
    large = (parts.mean(1) ** 2).sum(-1)
    found = noise_scale.of_norms(small, large, b, B)
    assert found.rows == pytest.approx(60, rel=0.06) and found.low < 60 < found.high
    # what has no mean gradient is lost in the noise
    lost = noise_scale.of_norms(small - 1, large - 1.2, b, B)
    assert lost.rows == math.inf and noise_scale.suggested([lost]) is None


@pytest.mark.parametrize("alike", [True, False])
def test_rows_that_are_alike_have_no_noise(alike, tmp_path):
    given = [*TINY, rows(tmp_path, alike), f"probe.output={tmp_path / 'out'}"]
    how = ["probe.steps=1", "probe.points=1", "probe.batches=3", "probe.parts=2"]
    code, out, err = tiny.jaxsft("probe", "noise", *given, *how)
    assert code == 0, err
    (point,) = read_json(tmp_path / "out" / "noise.json")["points"]
    if alike:  # but for one row of forty
        assert point["low"] < 1e-3
    else:
        assert point["rows"] > 1
    assert "override: train.batch_size=" in out
    assert (tmp_path / "out" / "noise.png").read_bytes().startswith(PNG)


def test_a_batch_that_cannot_be_cut_is_refused(tmp_path):
    given = [*TINY, rows(tmp_path, False), "probe.parts=3"]
    code, _, err = tiny.jaxsft("probe", "noise", *given)
    assert code == 1 and "probe.parts=3: train.batch_size=8 rows are not divided" in err
    code, _, err = tiny.jaxsft("probe", "rates", *given, "probe.low=2")
    assert code == 1 and "probe.low=2: expected less than 1" in err
    code, _, err = tiny.jaxsft("probe", "rate", *given)
    assert code == 1 and "expected one of rates, noise, rows" in err


# --- rows that fit
# --------------------------------------------------------------------------------------------------
def find(size, limit: float | None, room: float | None = None) -> batch_finder.RowsThatFit:
    facts = {"room": room, "mesh": {"data": 1, "fsdp": 1}}
    measured = lambda config, rows: (facts, size(rows), 1.0)
    return batch_finder.find(Config(), limit, measured=measured)


@pytest.mark.parametrize(
    "size",
    [
        lambda rows: 100.0 + 7 * rows,  # as a step is, nearly
        lambda rows: 100.0 + 7 * rows + (900 if rows > 16 else 0),  # more than the first two say
        lambda rows: 100.0 + 7 * rows if rows < 8 else 90.0 + 5 * rows,  # less
    ],
)
def test_the_most_rows_that_fit_were_compiled(size):
    found = find(size, 1000.0)
    assert size(found.rows) <= 1000 and found.rows in found.compiled
    assert found.rows >= 16 and len(found.compiled) <= 6
    if size(64) < 1000:
        assert found.rows == 64 or size(2 * found.rows) > 1000 or 2 * found.rows in found.compiled


def test_without_room_no_rows_fit_and_the_room_is_that_of_the_device():
    assert find(lambda rows: 100.0 + rows, 50.0).rows == 0
    assert find(lambda rows: 100.0 + rows, None, room=140.0).rows == 32
    with pytest.raises(ConfigError, match=r"give probe\.memory=GiB"):
        find(lambda rows: 1.0, None)


def test_the_rows_that_are_tried_count_as_asked_for(monkeypatch):
    """Other presets stay what nobody asked for, or a pretrained model would refuse them."""
    seen = []

    def compiled(config, topology, what):
        seen.append((config.train.batch_size, config.unasked))
        return {"facts": {}, "memory_bytes": 1.0}

    monkeypatch.setattr(batch_finder.planning, "compiled", compiled)
    unasked = (("train.batch_size", 8), ("model.layers", 2))
    batch_finder._measured(dataclasses.replace(Config(), unasked=unasked), 64)
    assert seen == [(64, (("model.layers", 2),))] * 2
