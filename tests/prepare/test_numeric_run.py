"""The stages for numbers and classes in `jaxsft prepare`: a list from YAML, the manifest, new rows,
and a run that reads the weights.
"""

import numpy as np
import pytest

from jaxsft.config import overrides
from jaxsft.data import formats, prepared
from jaxsft.data.formats import Row
from jaxsft.prepare import run
from jaxsft.prepare.stages.scale import inverse
from jaxsft.training import components, setup
from tests import tiny


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    rng = np.random.default_rng(0)
    for name, n in (("train", 60), ("test", 20)):
        base = rng.normal(size=n)
        rows = [
            {
                "text": f"row {i} has number {i * i} here",
                "label": "rare" if i % 6 == 0 else "usual",
                "a": f"{b:.3f}" if i % 5 else "",
                "b": f"{2 * b + 1:.3f}",
            }
            for i, b in enumerate(base)
        ]
        if name == "train":
            rows[7]["b"] = "1000"
        formats.write(rows, folder / f"{name}.csv")
    return folder


def prepare(files, name, *stages):
    given = {
        "data": {"train": str(files / "train.csv"), "test": str(files / "test.csv")},
        "stages": list(stages),
        "output": {"dir": str(files / name)},
    }
    found, _ = run.prepare(overrides.composed(overrides.from_values(given), "prepare"))
    return found, {
        split: formats.read(files / name / f"{split}.jsonl") for split in ("train", "test")
    }


def test_a_list_of_stages_fills_scales_and_drops_with_what_the_training_rows_taught(files):
    stages = (
        {"outliers": {"fields": ["b"], "method": "mad", "action": "drop"}},
        {"missing": {"fields": ["a"], "using": ["b"], "strategy": "iterative"}},
        {"scale": {"fields": ["a", "b"]}},
    )
    found, sets = prepare(files, "filled", *stages)
    assert [s["written"] for s in found["stages"]][1:] == [{"train": 59, "test": 20}] * 3
    x = np.array([[r.fields["a"], r.fields["b"]] for r in sets["train"]])
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-9)
    # b = 2 a + 1, so filled cells lie on the line
    np.testing.assert_allclose(x[:, 0], x[:, 1], atol=0.03)
    assert prepared.manifest(files / "filled")["stages"][2]["state"]["kinds"] == {"a": "number"}
    new = [
        Row({"text": "new", "a": "", "b": "2000"}, "new.csv", 2),
        Row({"text": "new"}, "new.csv", 3),
        Row({"a": 0.5, "b": 2.0}, "new.csv", 4),
    ]
    # nothing is dropped there, and what is not there (a target) is not made up
    out = run.replay(found, new)
    assert out[0].fields["a"] == pytest.approx(out[0].fields["b"], rel=0.02) and out[1].fields == {
        "text": "new"
    }
    state = found["stages"][3]["state"]
    assert inverse(state, "b", out[2].fields["b"]) == pytest.approx(2.0) and inverse(
        state, "a", out[2].fields["a"]
    ) == pytest.approx(0.5)


def test_weights_and_noise_act_on_training_rows_only_and_a_run_reads_them(files):
    found, sets = prepare(
        files,
        "weighted",
        {"label_noise": {"folds": 2}},
        {"balance": {"method": "weight", "toward": "equal"}},
    )
    weights = np.array([r.fields["weight"] for r in sets["train"]])
    rare = np.array([r.fields["label"] == "rare" for r in sets["train"]])
    assert weights.mean() == pytest.approx(1) and weights[rare].sum() == pytest.approx(
        weights[~rare].sum()
    )
    assert "weight" not in sets["test"][0].fields
    assert found["stages"][2]["sets"]["train"]["facts"]["before"] == {"rare": 10, "usual": 50}
    options = [
        "task=classify",
        *tiny.FAST,
        "model.causal=false",
        f"data.path={files / 'weighted'}",
        "data.columns.label=label",
    ]
    code, _, error = tiny.jaxsft("train", *options, f"run_dir={files / 'none'}")
    assert code == 1 and "data.columns.weight=weight" in error
    config = setup.resolve(overrides.composed([*options, "data.columns.weight=weight"]))
    records = components.prepare(config)[1]
    assert [r.weight for r in records["train"][0]] == weights.tolist() and {
        r.weight for r in records["test"][0]
    } == {1.0}


def test_the_same_files_give_the_same_bytes(files):
    stages = (
        {"missing": {"fields": ["a"], "strategy": "drop"}},
        {"balance": {"fill": "mix", "toward": "ratio", "ratio": 0.4}},
    )
    one, _ = prepare(files, "one", *stages)
    two, _ = prepare(files, "two", *stages)
    assert one["splits"] == two["splits"] and one["stages"] == two["stages"]
