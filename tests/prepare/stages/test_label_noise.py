import numpy as np
import pytest

from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.stage import Context
from jaxsft.prepare.stages.label_noise import LabelNoise
from jaxsft.rundir import read_json
from tests.prepare.numeric_harness import column, make, run

WRONG = (3, 20)


def noisy(n=40):
    truth = [i % 2 for i in range(n)]
    given = [1 - t if i in WRONG else t for i, t in enumerate(truth)]
    p = np.array([[0.9, 0.1] if t == 0 else [0.1, 0.9] for t in truth])
    texts = [
        f"{['good', 'bad'][t]} {['fine', 'poor'][t]} thing number {i}" for i, t in enumerate(truth)
    ]
    return make({"text": texts, "label": given, "p": p.tolist()}), p


def test_each_action_treats_the_wrong_labels_and_no_others():
    rows, _ = noisy()
    where = [rows[i].where for i in WRONG]
    stage = lambda action, **options: run(
        LabelNoise(action=action, probabilities="p", **options), train=rows, test=rows
    )
    out, reports, _ = stage("report")
    assert column(out["train"], "label") == column(rows, "label") and reports["train"].marked == {
        "label issue": 2
    }
    assert [w[0] for w in reports["train"].facts["worst"]] == where and reports["train"].facts[
        "worst"
    ][0][1:] == ["0", "1", 0.1]
    out, reports, _ = stage("drop")
    assert [w for w, _ in reports["train"].dropped] == where and len(out["test"]) == 40
    out, reports, _ = stage("relabel")
    assert (
        column(out["train"], "label") == [i % 2 for i in range(40)]
        and out["train"][3].fields["label_given"] == 0
    )
    assert reports["train"].changed == {"0 -> 1": 1, "1 -> 0": 1}
    out, _, _ = stage("weight")
    weights = np.array(column(out["train"], "weight"))
    assert weights.mean() == pytest.approx(1) and weights[3] / weights[0] == pytest.approx(0.1)
    weights = column(stage("weight", least=0.5)[0]["train"], "weight")
    assert weights[3] / weights[0] == pytest.approx(0.5)


def test_probabilities_come_from_a_file_or_from_other_folds(tmp_path):
    rows, p = noisy()
    np.save(tmp_path / "p.npy", p[:, ::-1])
    out, _, _ = run(
        LabelNoise(action="drop", probabilities=str(tmp_path / "p.npy"), classes=["1", "0"]),
        train=rows,
    )
    assert len(out["train"]) == 38
    _, reports, _ = run(LabelNoise(action="drop", folds=4), train=rows)
    assert {rows[i].where for i in WRONG} <= {w for w, _ in reports["train"].dropped}


def test_what_are_no_probabilities_is_refused(tmp_path):
    rows, p = noisy()
    for array, message in (
        (p[:5], r"found the shape \[5, 2\], expected \[40, 2\]"),
        (p * 2, "no probabilities"),
        (p * np.nan, "no probabilities"),
    ):
        np.save(tmp_path / "p.npy", array)
        with pytest.raises(DataError, match=message):
            run(LabelNoise(probabilities=str(tmp_path / "p.npy")), train=rows)
    np.save(tmp_path / "p.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot be read as an array of numbers"):
        run(LabelNoise(probabilities=str(tmp_path / "p.npy")), train=rows)
    with pytest.raises(DataError, match=r"missing column 'q'"):
        run(LabelNoise(probabilities="q"), train=rows)
    with pytest.raises(DataError, match=r"holds 2 numbers, expected 3, one per class"):
        run(LabelNoise(probabilities="p", classes=["0", "1", "2"]), train=rows)
    with pytest.raises(DataError, match=r"rows.csv:3: label '1' is none of"):
        run(LabelNoise(probabilities="p", classes=["0", "2"]), train=rows)
    with pytest.raises(DataError, match=r"fewer than folds"):
        run(LabelNoise(folds=25), train=rows)
    with pytest.raises(DataError, match=r"rows.csv:2: .*label"):
        run(LabelNoise(context=Context()), train=make({"text": ["a"], "label": [None]}))
    for options in ({"action": "fix"}, {"folds": 1}, {"least": 0.0}, {"classes": ["a", "a"]}):
        with pytest.raises(ConfigError, match=r"stages.label_noise"):
            LabelNoise(**options).check()


def test_it_writes_how_often_each_label_is_given_for_each(tmp_path):
    rows, _ = noisy()
    path = tmp_path / "transition.json"
    run(LabelNoise(probabilities="p", transition=str(path)), train=rows)
    found = read_json(path)
    # 20 rows of either class, of which one is given as the other
    assert found["labels"] == ["0", "1"]
    np.testing.assert_allclose(found["matrix"], [[19 / 20, 1 / 20], [1 / 20, 19 / 20]])
    with pytest.raises(ConfigError, match=r"transition=matrix\.npy: expected a name that ends in"):
        run(LabelNoise(transition="matrix.npy"), train=rows)
