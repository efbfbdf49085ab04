"""The tasks on whole texts from the command line: train, eval, predict and the report, on small
files.
"""

import csv
import json
import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from jaxsft.metrics import label_sets
from jaxsft.metrics.base import Outputs, measure
from jaxsft.rundir import read_json, read_jsonl
from tests import tiny

TINY = [
    *tiny.FAST,
    "model.layers=1",
    "data.max_dropped=0",
    "model.dropout=0.0",
    "optim.learning_rate=0.01",
    "tokenizer=bytes",
    "evaluation.every=2steps",
]


def words(i):
    return " ".join(("red", "blue", "big")[k] for k in range(3) if (i + 1) >> k & 1)


def rows(count):
    return [
        {
            "text": f"{words(i)} thing",
            "labels": words(i).split(),
            "x": float(i % 7),
            "y": None if i % 5 == 2 else 2.0 * (i % 3),
            "age": i,
            "sort": "ab"[i % 2],
        }
        for i in range(count)
    ]


def run(*arguments):
    code, out, err = tiny.jaxsft(*map(str, arguments))
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, part in (("train", rows(24)), ("validation", rows(17)), ("test", rows(9))):
        tiny.write_lines(folder / f"{name}.jsonl", part)
    pairs = [
        {"text": f"{words(i)} one", "text_pair": f"{words(i)} two {i % 4}", "near": i % 4}
        for i in range(16)
    ]
    tiny.write_lines(folder / "pairs.jsonl", pairs)
    tiny.write_lines(
        folder / "bare.jsonl", [{"text": r["text"], "age": None, "sort": "z"} for r in rows(3)]
    )
    return folder


def train(files, folder, task, *options):
    run(
        "train",
        f"task={task}",
        *TINY,
        *(f"data.{name}={files / name}.jsonl" for name in ("train", "validation", "test")),
        *options,
        f"run_dir={folder}",
    )
    return read_json(folder / "result.json")


@pytest.fixture(scope="module")
def multilabel(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("multilabel") / "run"
    train(
        files,
        folder,
        "multilabel",
        "task.threshold=tuned",
        "task.positive_weight=balanced",
        "data.columns.features=[age,sort]",
        "data.columns.missing=mask",
    )
    return folder


def test_thresholds_are_tuned_on_validation_and_kept(files, multilabel):  # guards E9
    result, state = read_json(multilabel / "result.json"), read_json(multilabel / "task.json")
    lines = {
        name: read_jsonl(multilabel / "predictions" / f"{name}.jsonl")
        for name in ("validation", "test")
    }
    names = state["labels"]
    gold, p = {}, {}
    for name, part in lines.items():
        gold[name] = np.array([[label in line["labels"] for label in names] for line in part])
        p[name] = np.array([[line["probability"][label] for label in names] for line in part])
    best = label_sets.best_thresholds(gold["validation"], p["validation"])
    np.testing.assert_allclose(state["thresholds"], best, atol=2e-6)
    given = p["test"] >= np.array(state["thresholds"])
    outputs = Outputs(np.arange(len(given)), {"labels": gold["test"], "given": given}, names)
    scores = measure(label_sets.METRICS["label_set_scores"], outputs)
    assert {k: result[f"test/{k}"] for k in scores} == pytest.approx(scores)
    told = json.loads(run("eval", f"run={multilabel}", f"data.path={files / 'test.jsonl'}"))
    assert {k: told[f"test/{k}"] for k in scores} == pytest.approx(scores) and told[
        "test/loss"
    ] == pytest.approx(result["test/loss"], rel=1e-4)
    # eval tunes nothing, whatever its file is called
    assert read_json(multilabel / "task.json") == state
    run("eval", f"run={multilabel}", f"data.path={files / 'validation.jsonl'}")
    assert read_json(multilabel / "task.json") == state


def test_labels_are_predicted_without_labels(files, multilabel, tmp_path):
    """A class that training did not have, and a number that is missing; a file of cells has a
    column for each probability.
    """
    for suffix in ("jsonl", "csv"):
        run(
            "predict",
            f"run={multilabel}",
            f"input={files / 'bare.jsonl'}",
            f"output={tmp_path / 'out'}.{suffix}",
        )
    lines = read_jsonl(tmp_path / "out.jsonl")
    assert len(lines) == 3 and all(
        set(line) == {"text", "age", "sort", "prediction", "probability"} for line in lines
    )
    with open(tmp_path / "out.csv", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    for line, cell in zip(lines, cells, strict=True):
        assert cell["prediction"] == ",".join(line["prediction"])
        assert float(cell["probability_red"]) == pytest.approx(line["probability"]["red"])


def test_the_report_has_a_table_of_labels(multilabel):
    table = read_json(multilabel / "figures" / "table_labels_test.json")
    assert table["columns"][:3] == ["label", "support", "given"]
    assert {row[0] for row in table["rows"]} == {"big", "blue", "red"}
    assert sorted(row[1] for row in table["rows"])[::-1] == [row[1] for row in table["rows"]]
    report, page = (
        (multilabel / name).read_text(encoding="utf-8") for name in ("report.md", "report.html")
    )
    assert (
        "### labels of test" in report
        and "could not be written" not in report + page
        and "labels of test" in page
    )
    assert f"| blue | {table['rows'][1][1]} |" in report


def test_numbers_in_the_units_of_the_data(files, tmp_path):
    result = train(
        files,
        tmp_path / "run",
        "regress",
        "data.columns.targets=[x,y]",
        "data.columns.missing=mask",
    )
    lines = read_jsonl(tmp_path / "run" / "predictions" / "test.jsonl")
    column = lambda kind, name: np.array(
        [math.nan if line[kind][name] is None else line[kind][name] for line in lines]
    )
    for name in "xy":
        gold, predicted = column("label", name), column("prediction", name)
        gold, predicted = gold[np.isfinite(gold)], predicted[np.isfinite(gold)]
        for score, value in {
            "mse": sklearn.metrics.mean_squared_error(gold, predicted),
            "r2": sklearn.metrics.r2_score(gold, predicted),
            "spearman": scipy.stats.spearmanr(gold, predicted).statistic,
        }.items():
            assert result[f"test/{score}_{name}"] == pytest.approx(value)
    assert result["test/mae"] == pytest.approx((result["test/mae_x"] + result["test/mae_y"]) / 2)
    assert read_json(tmp_path / "run" / "task.json")["mean"] == pytest.approx(
        [
            np.mean([r["x"] for r in rows(24)]),
            np.mean([r["y"] for r in rows(24) if r["y"] is not None]),
        ]
    )
    run(
        "predict",
        f"run={tmp_path / 'run'}",
        f"input={files / 'bare.jsonl'}",
        f"output={tmp_path / 'out.jsonl'}",
    )
    assert set(read_jsonl(tmp_path / "out.jsonl")[0]["prediction"]) == {"x", "y"}
    assert "### targets of test" in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, metric, found",
    [
        (
            ["data.columns.score=near", "task.encoder=bi", "task.loss=mse"],
            "spearman",
            {"prediction"},
        ),
        (
            ["task.encoder=bi", "task.loss=contrastive", "data.columns.label=null"],
            "mrr",
            {"prediction"},
        ),
    ],
    ids=["scores", "contrast"],
)
def test_pairs(files, tmp_path, options, metric, found):
    data = [f"data.{name}={files / 'pairs'}.jsonl" for name in ("train", "test")]
    run("train", "task=pair", *TINY, *data, *options, f"run_dir={tmp_path / 'run'}")
    result = read_json(tmp_path / "run" / "result.json")
    assert math.isfinite(result[f"test/{metric}"]) and result["test/rows"] == 16
    run(
        "predict",
        f"run={tmp_path / 'run'}",
        f"input={files / 'pairs.jsonl'}",
        f"output={tmp_path / 'out.jsonl'}",
    )
    assert set(read_jsonl(tmp_path / "out.jsonl")[0]) == {"text", "text_pair", "near", *found}
    assert "could not be written" not in (tmp_path / "run" / "report.html").read_text(
        encoding="utf-8"
    )
