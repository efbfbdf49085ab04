"""Figures and report.md come from the files of a run alone; nothing is hidden, and a file that is
missing costs only its own section.
"""

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from jaxsft.errors import DataError, JaxsftError
from jaxsft.reports import figures, outputs
from jaxsft.reports.confusion import confusions, read_confusion
from jaxsft.reports.curves import metric_groups, series, smooth
from jaxsft.reports.facts import shorten
from jaxsft.reports.figures import drawable, write_figures
from jaxsft.reports.markdown_report import escape, samples_table, write_report
from jaxsft.rundir import write_json, write_text
from tests.reports.fake_run import make, metrics

MANY = [f"{'card payment' if i % 2 else 'exchange_rate'}_{i}" for i in range(77)]


@pytest.mark.parametrize(
    "labels",
    [["negative", "positive"], ["好评", "差评", "$5 or $6", "a|b"], ["好评", "差评"], MANY],
    ids=["two", "chinese", "two_chinese", "many"],
)
def test_figures_are_drawn_without_a_warning(tmp_path, labels):
    make(tmp_path, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = write_figures(tmp_path)
    names = [path.name for path in written]
    assert names == [
        "loss.png",
        "learning_rate.png",
        "validation_accuracy.png",
        "validation_f1.png",
        "confusion_test.png",
        "ledger.png",
    ]
    for path in written:
        picture = imread(path)
        assert (
            picture.shape[0] > 300 and picture.shape[1] > 400 and picture[..., :3].std() > 0.03
        ), path.name
        edges = [picture[:3], picture[-3:], picture[:, :3], picture[:, -3:]]
        assert all(edge[..., :3].min() > 0.99 for edge in edges), f"{path.name}: text is cut off"


def test_figures_of_the_same_run_are_the_same(tmp_path):
    make(tmp_path, ["a", "b"])
    first = [path.read_bytes() for path in write_figures(tmp_path)]
    assert first == [path.read_bytes() for path in write_figures(tmp_path)]


def test_figures_of_odd_runs(tmp_path):
    with pytest.raises(JaxsftError, match="no such run directory"):
        write_figures(tmp_path / "nothing")
    assert write_figures(tmp_path) == []
    write_text(
        tmp_path / "metrics.jsonl",
        '{"step": 1, "kind": "train", "loss": "NaN"}\n{"step": 2, "kind": "train", "loss":'
        ' "Infinity"}\n',
    )
    assert [path.name for path in write_figures(tmp_path)] == ["loss.png"]
    write_json(
        tmp_path / "figures" / "confusion_test.json", {"labels": ["a", "b"], "matrix": [[1, 2]]}
    )
    with pytest.raises(DataError, match=r"confusion_test.json: expected a matrix of 2 x 2"):
        write_figures(tmp_path)


def test_series_and_groups(tmp_path):
    rows = [
        {"step": 1, "kind": "train", "loss": 2.0},
        {"step": 2, "kind": "train", "loss": "NaN"},
        {"step": 2, "kind": "validation", "loss": 1},
    ]
    steps, values = series(rows, "train", "loss")
    assert steps.tolist() == [1, 2] and values[0] == 2 and math.isnan(values[1])
    assert series(rows, "train", "absent")[0].shape == (0,)
    keys = [
        "step",
        "kind",
        "loss",
        "macro_f1",
        "f1_weighted",
        "f1/cat",
        "accuracy",
        "token_accuracy",
    ]
    row = dict.fromkeys(keys, 1) | {"kind": "validation"}
    assert metric_groups([row]) == {
        "f1": ["macro_f1", "f1_weighted", "f1/cat"],
        "accuracy": ["accuracy"],
        "token_accuracy": ["token_accuracy"],
    }


def test_smooth_leaves_out_what_is_not_finite():
    values = np.array([1.0, np.nan, 3.0, np.inf, 5.0])
    assert smooth(values, 1)[[0, 2, 4]].tolist() == [1, 3, 5]
    assert smooth(values, 3).tolist() == [1, 2, 3, 4, 5]
    assert np.isnan(smooth(np.array([np.nan, np.nan]), 3)).all()


def test_confusions_in_order():
    assert confusions(["a", "b", "c"], np.array([[5, 1, 0], [3, 9, 0], [0, 2, 4]])) == [
        ("b", "a", 3),
        ("c", "b", 2),
        ("a", "b", 1),
    ]
    assert confusions(["a"], np.array([[5]])) == []


def test_undrawable_text_is_replaced_whole():
    assert drawable("é ok", "#1") == "é ok"
    assert drawable("\U000f0000", "#1") == "#1"


def test_report_of_a_whole_run(tmp_path):
    make(tmp_path / "run", ["negative", "positive"], broken=(7,))
    write_figures(tmp_path / "run")
    text = write_report(tmp_path / "run").read_text("utf-8")
    assert text.startswith("# classify on demo\n\nRun `run`")
    assert "| metric | test | validation |" in text and "| `accuracy` | 0.9625 | 0.97 |" in text
    assert "| `loss` | 0.1235 | NaN |" in text and "1 of 4 numbers is not finite" in text
    assert "not finite at 1 logged steps, first at step 7" in text
    assert (
        "| − rows dropped: duplicate prompt | 100 |  |" in text
        and "Every row and token is accounted for." in text
    )
    assert "![Confusions on test](figures/confusion_test.png)" in text and text.index(
        "figures/loss.png"
    ) < text.index("figures/ledger.png")
    assert "35 of 40 predictions are correct" in text and r"\| a⏎b | negative |" in text
    assert (
        "| `train.duration` | `400steps` | `10epochs` |" in text and "`data.split_seed`" not in text
    )
    assert "| versions.jax | 0.10.2 |" in text and "| parameters, total | 919,680 |" in text


def test_chinese_labels_are_in_the_report_whatever_the_fonts(tmp_path):
    make(tmp_path, ["好评", "差评", "中评", "无"])
    write_json(
        tmp_path / "figures" / "confusion_test.json",
        {"labels": ["好评", "差评"], "matrix": [[3, 2], [0, 4]]},
    )
    write_figures(tmp_path)
    assert "| 0 好评 | 1 差评 | 2 |" in write_report(tmp_path).read_text("utf-8")


def test_a_wrong_ledger_is_told(tmp_path):
    make(tmp_path)
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    ledger["train"]["rows"]["kept"] -= 1
    ledger["validation"]["tokens"]["trained"] += 5
    write_json(tmp_path / "ledger.json", ledger)
    text = write_report(tmp_path).read_text("utf-8")
    assert "train: rows read 5,000 ≠ kept 4,869 + dropped 130" in text
    assert (
        "validation: tokens kept 15,000 ≠ trained 4,105 + masked 10,900" in text
        and "accounted for" not in text
    )


def test_missing_and_damaged_files_cost_their_section_only(tmp_path):
    metrics(tmp_path / "metrics.jsonl", steps=3)
    text = write_report(tmp_path).read_text("utf-8")
    for words in (
        "result.json is missing",
        "ledger.json is missing",
        "No figures",
        "No predictions",
        "config.yaml is missing",
        "| steps | 3",
    ):
        assert words in text
    write_text(tmp_path / "ledger.json", "{broken")
    write_text(tmp_path / "config.yaml", "a: [1")
    write_json(tmp_path / "manifest.json", [])
    write_json(tmp_path / "result.json", {"test/accuracy": "high"})
    text = write_report(tmp_path).read_text("utf-8")
    assert text.count("This section could not be written") >= 3 and text.startswith("# Run\n")


def test_a_directory_that_is_no_run(tmp_path):
    with pytest.raises(JaxsftError, match="not a run directory"):
        write_report(tmp_path)
    with pytest.raises(JaxsftError, match="not a run directory"):
        write_report(tmp_path / "missing")


def test_samples_table_cannot_be_broken_by_its_content():
    rows = [
        {
            "prompt": "a|b\n<script>`*x*` [l](u) $y$ \\| \x00 snake_case _it_",
            "n": 12345,
            "ok": False,
            "p": "NaN",
        },
        {"prompt": ""},
    ]
    lines = samples_table(rows, ["prompt", "n", "ok", "p"]).split("\n")
    assert len(lines) == 4
    assert (
        lines[2]
        == r"| a\|b⏎&lt;script&gt;\`\*x\*\` \[l\](u) \$y\$ \\\| \\u0000 snake_case \_it\_ | 12,345"
        r" | **no** | NaN |"
    )
    assert lines[3] == "| *(empty)* |  |  |  |"
    assert escape("a\r\nb\tc") == "a⏎b⇥c"
    assert (
        shorten("x" * 50 + "y" * 50, 20) == "x" * 13 + "…" + "y" * 6
        and shorten("short", 20) == "short"
    )


def test_fences_are_longer_than_those_in_the_config(tmp_path):
    write_text(tmp_path / "config.yaml", 'template: "```"\n')
    assert '````yaml\ntemplate: "```"\n````' in write_report(tmp_path).read_text("utf-8")


def test_reports_never_import_jax():
    code = (
        "import sys, jaxsft.reports.outputs, jaxsft.training.tensorboard; sys.exit('jax' in"
        " sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_read_confusion_names_the_file(tmp_path):
    write_json(tmp_path / "confusion_x.json", {"labels": ["a"]})
    with pytest.raises(DataError, match=r"confusion_x.json: expected labels and a matrix"):
        read_confusion(tmp_path / "confusion_x.json")


def test_a_loss_over_decades_has_numbers_at_its_axis():
    rows = [{"step": k, "kind": "train", "loss": 10 ** (1 - k / 10)} for k in range(40)]
    figure = figures._loss(rows)
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "0.1" in labels and not any("$" in label for label in labels)


DAMAGED = {
    "a folder for the card": lambda run: (
        (run / "README.md").unlink(missing_ok=True),
        (run / "README.md").mkdir(),
    ),
    "nested without end": lambda run: [
        (run / name).write_text("[" * 100_000 + "]" * 100_000) for name in JSON_FILES
    ],
    "folders for files": lambda run: [
        ((run / name).unlink(), (run / name).mkdir())
        for name in JSON_FILES
        if (run / name).is_file()
    ],
    "other types": lambda run: [
        (run / name).write_text(text) for name in JSON_FILES for text in ('{"a": [1]}',)
    ],
    "numbers": lambda run: [(run / name).write_text("1") for name in JSON_FILES],
    "bytes": lambda run: [
        (run / name).write_bytes(b"\xff\x00") for name in (*JSON_FILES, "config.yaml")
    ],
    "aliases": lambda run: (run / "config.yaml").write_text("a: &a [1]\nb: [*a, *a]\n"),
    "links to nothing": lambda run: [
        ((run / name).unlink(missing_ok=True), (run / name).symlink_to("absent"))
        for name in JSON_FILES[1:]
    ],
}
JSON_FILES = ("ledger.json", "result.json", "manifest.json", "task.json", "metrics.jsonl")


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_costs_its_section_and_the_rest_is_written(
    name, tmp_path, capsys, monkeypatch
):
    # nothing that figures read
    if name in ("a folder for the card", "aliases", "links to nothing"):
        monkeypatch.setattr(figures, "write_figures", lambda run: [])
    run = make(tmp_path / "run", ["a", "b"])
    DAMAGED[name](run)
    names = {path.name for path in outputs.write_all(run)}
    assert names == {"report.md", "report.html"} | (
        {"README.md"} if name != "a folder for the card" else set()
    )
    text = (run / "report.md").read_text()
    assert (
        "could not be written" in text
        or "missing" in text
        or "found the alias" in text
        or name == "a folder for the card"
    )
    said = capsys.readouterr().err
    assert (
        "README.md: cannot read" in said
        if name == "a folder for the card"
        else "Traceback" not in said
    )


def test_a_font_that_was_installed_later_is_found(tmp_path, monkeypatch):
    manager = figures.font_manager
    own = next(font for font in manager.fontManager.ttflist if font.name == "STIXGeneral")
    (tmp_path / "NotoSansCJK-Regular.ttf").write_bytes(Path(own.fname).read_bytes())
    monkeypatch.setattr(figures, "CHINESE_FONTS", ("STIXGeneral",))
    monkeypatch.setattr(
        manager.fontManager,
        "ttflist",
        [font for font in manager.fontManager.ttflist if font.name != "STIXGeneral"],
    )
    monkeypatch.setattr(
        manager,
        "findSystemFonts",
        lambda: [str(tmp_path / "NotoSansCJK-Regular.ttf"), str(tmp_path / "other.ttf")],
    )
    assert figures._families.__wrapped__() == ("DejaVu Sans", "STIXGeneral")
    monkeypatch.setattr(manager, "findSystemFonts", list)
    assert figures._families.__wrapped__() == ("DejaVu Sans", "STIXGeneral")  # now it is known
