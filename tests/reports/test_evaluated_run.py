"""Bounds, slices, curves of scores and worst errors in the report, and what stands beside a run."""

import re
from pathlib import Path

import pytest

from jaxsft.errors import DataError
from jaxsft.reports import card, markdown_report, page
from jaxsft.reports.beside_sections import (
    against_section,
    explanations_section,
    robustness_section,
)
from jaxsft.reports.bounds_section import bounds_section
from jaxsft.reports.figures import write_figures
from jaxsft.reports.folds_sections import folds_section, gaps_section
from jaxsft.reports.report_tables import bar_of, intervals, scale
from jaxsft.reports.score_charts import scores_section
from jaxsft.reports.slices_section import lower_is_better, slices_section
from jaxsft.reports.worst_errors import errors_section
from jaxsft.rundir import json_text, write_json, write_text
from tests.reports.evaluated_run import beside, evaluated
from tests.reports.fake_run import make


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_bounds_stand_beside_the_numbers_everywhere(tmp_path):
    run = evaluated(tmp_path)
    section = bounds_section(run)
    test, validation = section.tables
    assert (test.title, validation.title) == ("test", "validation")
    assert texts(test)[0] == [
        "accuracy", "0.9625", "[0.9425, 0.9825]", "0.01", "0.005", "140", "30", "percentile",
    ]  # fmt: skip
    assert "no bound: no sum over rows" in texts(test)[1][-1] and len(test.rows) == 2
    bar = test.rows[0][2].bar
    assert test.ends == ("0.9", "1") and bar.at == 62.5 and (bar.low, bar.high) == (42.5, 82.5)
    assert "clusters is 2 times as large" in section.told[1] and "too small" in section.told[1]
    text = page.write_page(run).read_text("utf-8")
    assert 'style="left:42.5%;width:40.0%"' in text and "[0.9425, 0.9825]" in text
    report = markdown_report.write_report(run).read_text("utf-8")
    assert r"0.9625 \[0.9425, 0.9825\]" in report and "bar" not in report.split("## Training")[0]
    readme = card.write_card(run).read_text("utf-8")
    assert r"0.9625 \[0.9425, 0.9825\]" in readme and "level 0.95 over whole clusters" in readme
    assert "bias and safety were not measured" in readme


def test_the_worst_slice_is_named_with_its_corrected_bound(tmp_path):
    run = evaluated(tmp_path)
    section = slices_section(run)
    assert section.told == [
        "test: the worst slice is source=短信 (20 rows), accuracy 0.8, [0.75, 0.85] after looking"
        " at 3 slices: the bound leaves out the 0.9625 of all rows, so it is worse."
    ]
    assert texts(section.tables[0])[1][:5] == [
        "source=短信", "20", "0.8", "[0.78, 0.82]", "[0.75, 0.85]",
    ]  # fmt: skip
    assert lower_is_better("loss") and lower_is_better("rmse") and not lower_is_better("accuracy")


def test_curves_lie_where_their_numbers_say(tmp_path):
    run = evaluated(tmp_path)
    section = scores_section(run)
    roc, recall, reliability = section.charts
    assert roc.lines[1].path == "M0.0 1000.0L0.0 250.0L500.0 0.0L1000.0 0.0"
    assert roc.lines[1].name == "好评 (0.875)" and roc.x_label == "share of others"
    assert recall.lines[0].path == "M0.0 0.0L1000.0 500.0"
    assert reliability.lines[1].points[0] == (60.0, 50.0, "40 rows: confidence 0.600, right 0.500")
    assert "area under the ROC curve 0.875" in section.told[0] and "ECE 0.064" in section.told[0]
    write_figures(run)
    assert (run / "figures" / "curves_test.png").stat().st_size > 10_000


def test_the_worst_errors_come_first(tmp_path):
    run = evaluated(tmp_path)
    validation = errors_section(run).tables[1]
    assert [row[0] for row in texts(validation)][:2] == ["29", "27"] and len(validation.rows) == 15
    assert texts(validation)[0][2:] == ["差评", "好评", "0.79", "v.jsonl:30"]
    lines = [
        {"row": 0, "text": "near", "label": 1.0, "prediction": 1.25},
        {"row": 1, "text": "far", "label": 1.0, "prediction": -1.0},
    ]
    texts_only = [{"row": i, "text": "t", "nll": 8.0 * i, "tokens": 4} for i in range(3)]
    sets = [
        {"row": 0, "text": "a", "labels": ["x"], "prediction": [], "correct": False,
         "probability": {"x": 0.1, "y": 0.2}},
    ]  # fmt: skip
    (run / "predictions" / "test.jsonl").unlink()
    for rows, first in ((lines, ["1", "2"]), (texts_only, ["2", "4"]), (sets, ["0", "0.9"])):
        path = run / "predictions" / "validation.jsonl"
        write_text(path, "".join(json_text(row) + "\n" for row in rows))
        row = texts(errors_section(run).tables[0])[0]
        assert [row[0], row[4]] == first


def test_what_stands_beside_a_run_has_its_section(tmp_path):
    run = beside(evaluated(tmp_path))
    text = page.write_page(run).read_text("utf-8")
    for name in ("crossval", "gaps", "robustness", "explanations", "against"):
        assert f'<section id="{name}">' in text
    assert "could not be written" not in text
    assert texts(gaps_section(run).tables[0])[0][2:] == [
        "0.99", "0.9", "-0.09", "[-0.12, -0.06]", "worse",
    ]  # fmt: skip
    report = markdown_report.write_report(run).read_text("utf-8")
    for line in (
        r"| accuracy | a → b | 0.9 | 0.95 | 0.05 | \[0.01, 0.09\] | 0.01 | 0.02 |",
        r"| occlusion comprehensiveness | 0.3 | \[0.2, 0.4\] |",
        r"| occlusion comprehensiveness over random | 0.1 | \[-0.1, 0.3\] |",
        r"| keyboard | 0.1 | 0.8 | \[0.75, 0.85\] |",
        "| repeat 0 fold 1 | 90 | 50 | 10 | 0.81 |",
    ):
        assert line in report


def test_a_run_without_these_files_has_no_such_section(tmp_path):
    text = page.write_page(make(tmp_path, ["a", "b"])).read_text("utf-8")
    for name in ("bounds", "slices", "crossval", "gaps", "scores", "robustness", "against"):
        assert f'<section id="{name}">' not in text
    assert "## Bounds" not in markdown_report.write_report(tmp_path).read_text("utf-8")


FILES = {
    "intervals.json": bounds_section,
    "figures/slices_test.json": slices_section,
    "figures/slice_gaps_test.json": slices_section,
    "figures/curves_test.json": scores_section,
    "figures/crossval.json": folds_section,
    "figures/gaps.json": gaps_section,
    "compare.json": against_section,
    "robustness/new/figures/robustness.json": robustness_section,
    "explanations/new/summary.json": explanations_section,
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_shape_is_one_sentence(tmp_path, name):
    run = beside(evaluated(tmp_path))
    for content in ([], {}, {"curves": 3}, [{"slice": "a"}], [3], {"a/b": 1}, "x", None):
        write_json(run / name, content)
        try:
            found = FILES[name](run)
        except DataError as error:
            assert str(error).count("\n") == 0 and Path(name).name in str(error)
        else:
            assert found is None or found.notices or found.tables


def test_damaged_files_cost_their_sections_only(tmp_path):
    run = beside(evaluated(tmp_path))
    for name in FILES:
        write_text(run / name, '{"a": ')
    sections = re.split('<section id="', page.write_page(run).read_text("utf-8"))[1:]
    damaged = [part.split('"')[0] for part in sections if "line 1" in part]
    assert damaged == [
        "bounds", "slices", "crossval", "gaps", "scores", "robustness", "explanations", "against",
    ]  # fmt: skip
    report = markdown_report.write_report(run).read_text("utf-8")
    assert "| `accuracy` | 0.9625 | 0.97 |" in report.replace(" (chose the checkpoint)", "")


def test_an_entry_that_is_no_number_of_a_split_is_told(tmp_path):
    write_json(tmp_path / "intervals.json", {"held_out": {"accuracy": {"value": 0.5}}})
    with pytest.raises(DataError, match="held_out: expected a number with its bounds"):
        intervals(tmp_path)


def test_scales_hold_what_is_drawn():
    assert scale([0.72, 0.81, None]) == (0.7, 0.9) and scale([]) == (0, 1)
    assert scale([1.0]) == (0.9, 1.0) and scale([0.0]) == (0.0, 1.0)
    low, high = scale([-3.0, 7.0])
    assert low < -3 and high > 7
    assert bar_of({"value": float("nan"), "low": 0, "high": 1}, (0, 1)) is None
    assert bar_of({"value": 0.5}, (0, 1)).low is None
