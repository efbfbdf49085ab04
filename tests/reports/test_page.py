"""report.html and the model card: whole, honest and closed. Parsed with the standard library; what
a browser makes of it is in test_browser.py.
"""

import html.parser
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import yaml

from jaxsft.data.ledger import length_summary
from jaxsft.errors import JaxsftError
from jaxsft.reports import card, charts, facts, outputs, page
from jaxsft.reports.confusion import behind, per_class
from jaxsft.rundir import json_text, read_json, read_jsonl, write_json, write_text
from tests.reports.fake_run import make

EVIL = "<script>alert(1)</script>\"'&</title></style><!--"
MANY = [f"{'card payment' if i % 2 else 'exchange_rate'}_{i}" for i in range(77)]
VOID = {"meta", "link", "br", "img", "input", "hr", "wbr"}


class Tree(html.parser.HTMLParser):
    """The tags of a page in order, what was closed wrongly, tables as texts, and the text of every
    element with an id.
    """

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.wrong, self.open, self.tables, self.texts, self.problems = (
            [],
            [],
            [],
            [],
            {},
            [],
        )
        self.feed(text)
        self.close()
        self.problems += self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag not in VOID:
            self.open.append((tag, attrs.get("id")))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop()[0] != tag:
            self.problems.append(f"</{tag}>")

    def handle_data(self, data):
        for _, name in self.open:
            if name:
                self.texts[name] = self.texts.get(name, "") + data
        if any(tag in ("td", "th") for tag, _ in self.open):
            self.tables[-1][-1][-1] += data

    def table(self, head: str) -> dict[str, list[str]]:
        """The rows of the table whose first heading is `head`, by their first cell."""
        rows = [
            [cell.strip() for cell in row]
            for row in next(t for t in self.tables if t and t[0] and t[0][0].strip() == head)
        ]
        return {row[0]: row[1:] for row in rows}


def written(run):
    text = page.write_page(run).read_text("utf-8")
    tree = Tree(text)
    assert not tree.problems
    return text, tree


def assert_closed(text, tree):
    """Nothing in the page is fetched from anywhere, and the only script is ours."""
    assert not re.search(r"https?:|//[\w.-]+\.\w|@import|url\(|\ssrc=|srcset", text)
    assert [tag for tag, _ in tree.tags].count("script") == 1
    for tag, attrs in tree.tags:
        assert tag not in ("img", "link", "iframe", "object", "embed", "base", "form")
        assert attrs.get("href", "#").startswith("#") and not any(
            name.startswith("on") for name in attrs
        )


@pytest.mark.parametrize(
    "labels",
    [None, ["negative", "positive"], ["好评", "差评", "مرحبا", "🙂"], MANY],
    ids=["chat", "two", "scripts", "many"],
)
def test_a_page_is_whole_and_closed(tmp_path, labels):
    text, tree = written(make(tmp_path, labels))
    assert_closed(text, tree)
    ids = [attrs["id"] for _, attrs in tree.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    wanted = [
        "results",
        "curves",
        *(["confusions"] if labels else []),
        "samples",
        "data",
        "configuration",
        "environment",
        "files",
    ]
    assert [i for i in ids if i in wanted] == wanted
    for _, attrs in tree.tags:
        assert attrs.get("href", "#x")[1:] in [*ids, "x"]  # every link leads somewhere
    assert (
        "prefers-color-scheme: dark" in text and 'name="viewport"' in text and len(text) < 400_000
    )
    assert tree.table("metric")["accuracy"] == ["0.9625", "0.97"] and tree.table("metric")[
        "loss"
    ] == ["0.1235", "NaN"]
    assert "1 of 4 numbers is not finite" in text and "unfinished" not in tree.texts["results"]
    assert tree.table("option")["train.duration"] == [
        "400steps",
        f"{'10' if labels else '3'}epochs",
    ]


@pytest.mark.parametrize(
    "labels", [["a", "b"], ["x", "y", "z", "w", "v"], MANY], ids=["two", "five", "many"]
)
def test_every_cell_has_the_count_of_the_matrix_and_its_own_examples(tmp_path, labels):
    run = make(tmp_path, labels)
    matrix = np.array(read_json(run / "figures" / "confusion_test.json")["matrix"])
    draw = np.random.default_rng(0)
    rows = [
        (i, j) for i in range(len(labels)) for j in range(len(labels)) for _ in range(matrix[i, j])
    ]
    chances = draw.random(len(rows)).tolist()
    lines = [{"row": n, "text": f"text of row {n}.", "label": labels[i], "prediction": labels[j],
    "probability": p, "correct": i == j}
             for n, ((i, j), p) in enumerate(zip(rows, chances, strict=True))]  # fmt: skip
    write_text(
        run / "predictions" / "test.jsonl", "".join(json.dumps(line) + "\n" for line in lines)
    )
    _, tree = written(run)
    cells = {
        attrs["id"]: attrs
        for tag, attrs in tree.tags
        if tag == "details" and attrs.get("id", "").startswith("cell-")
    }
    assert cells
    for name, attrs in cells.items():
        i, j = map(int, name.split("-")[2:])
        assert int(attrs["data-count"]) == matrix[i, j] > 0
        shown = [int(n) for n in re.findall(r"text of row (\d+)\.", tree.texts[name])]
        assert (
            len(shown) == min(page.EXAMPLES, matrix[i, j])
            and f"{len(shown)} of {matrix[i, j]} shown" in tree.texts[name]
        )
        assert all(rows[n] == (i, j) for n in shown)
        rest = [line["probability"] for n, line in enumerate(lines) if rows[n] == (i, j)]
        assert [lines[n]["probability"] for n in shown] == sorted(rest, reverse=i != j)[
            : page.EXAMPLES
        ]
    wrong = matrix - np.diag(np.diag(matrix))
    if len(labels) > page.LARGE:
        least = min(int(attrs["data-count"]) for attrs in cells.values())
        assert len(cells) == page.LISTED and (wrong > least).sum() <= page.LISTED
        assert (
            f"{page.LISTED} of {np.count_nonzero(wrong)} pairs of confused classes are listed"
            in tree.texts["confusions"]
        )
    else:
        assert len(cells) == np.count_nonzero(matrix)
        shown = [row[1:] for row in next(t for t in tree.tables if "true" in t[0][0])[1:]]
        assert [[int(cell) for cell in row] for row in shown] == matrix.tolist()


def test_a_predictions_file_that_does_not_fit_the_matrix_is_told(tmp_path):
    cells = behind(
        ["a", "b"],
        np.array([[3, 2], [0, 1]]),
        [{"label": "a", "prediction": "b"}, {"row": 1, "dropped": "empty"}],
        [(0, 1), (1, 1)],
        5,
    )
    assert [(cell.count, cell.found) for cell in cells] == [(2, 1), (1, 0)]
    run = make(tmp_path, ["a", "b"])
    (run / "predictions" / "test.jsonl").unlink()
    assert "; the predictions file has 0" in written(run)[0]


def test_precision_and_recall_are_those_of_scikit_learn():
    from sklearn.metrics import precision_recall_fscore_support

    matrix = np.random.default_rng(3).integers(0, 9, (6, 6))
    true, guess = (np.repeat(index.ravel(), matrix.ravel()) for index in np.indices(matrix.shape))
    ours = sorted(per_class(list("abcdef"), matrix.astype(float)), key=lambda c: c["number"])
    for name, theirs in zip(
        ("precision", "recall", "f1", "support"),
        precision_recall_fscore_support(true, guess),
        strict=True,
    ):
        np.testing.assert_allclose([c[name] for c in ours], theirs)


def test_what_a_run_holds_is_escaped_everywhere(tmp_path):
    run = make(tmp_path, [EVIL, "plain"])
    write_json(
        run / "result.json", {"test/accuracy": 0.5, f"test/{EVIL}": 1.0, f"{EVIL}/loss": 0.1}
    )
    text = (run / "config.yaml").read_text()
    write_text(
        run / "config.yaml", yaml.safe_dump(yaml.safe_load(text) | {"run_dir": EVIL, EVIL: EVIL})
    )
    ledger = read_json(run / "ledger.json")
    ledger[EVIL] = {**ledger["train"], "rows": {"read": 3, "kept": 2, "dropped": {EVIL: 1}}}
    write_json(run / "ledger.json", ledger)
    write_json(run / "manifest.json", {EVIL: EVIL, "command": [EVIL], "parameters": {EVIL: 3}})
    write_json(run / "task.json", {"labels": [EVIL, "plain"]})
    with open(run / "predictions" / "test.jsonl", "a") as file:
        file.write(
            json.dumps(
                {
                    "row": 99,
                    "text": EVIL + "\x00\u202e",
                    "label": EVIL,
                    "prediction": "plain",
                    "correct": False,
                    "where": EVIL,
                }
            )
            + "\n"
        )
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 400, "kind": "validation", EVIL: 0.5}) + "\n")
    text, tree = written(run)
    assert "could not be written" not in text
    assert_closed(text, tree)
    assert "<script>alert" not in text and text.count("&lt;script&gt;alert(1)") > 10
    assert "\x00" not in text and "\u202e" not in text
    assert EVIL in tree.texts["samples"].replace("\n", "") and EVIL in tree.texts["configuration"]
    readme = card.write_card(run).read_text("utf-8")
    # inside a code span it is text
    assert "<script>" not in re.sub(r"`+[^`]*`+", "", readme.split("---\n", 2)[2])
    assert yaml.safe_load(readme.split("---\n")[1])["library_name"] == "jaxsft"


def test_other_scripts_have_a_direction_and_a_language(tmp_path):
    run = make(tmp_path)
    lines = [
        {
            "row": 0,
            "prompt": "翻译：红色的猫 🐈",
            "reference": "a red cat",
            "prediction": "قطة حمراء",
            "correct": False,
        }
    ]
    write_text(
        run / "predictions" / "test.jsonl",
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
    )
    text, _ = written(run)
    assert '<meta charset="utf-8">' in text
    assert (
        '<p class="said " dir="auto" lang="zh">翻译：红色的猫 🐈</p>' in text
        and 'dir="auto" lang="ar">قطة حمراء<' in text
    )
    assert (
        page.language("ひらがなと漢字") == "ja"
        and page.language("한국어") == "ko"
        and page.language("plain") == ""
    )
    assert page.shown("👩‍👩‍👧 a\x07b") == "👩‍👩‍👧 a\\u0007b"


def test_the_ledger_of_the_page_is_that_of_the_run(tmp_path):
    run = make(tmp_path)
    ledger = read_json(run / "ledger.json")
    _, tree = written(run)
    table = tree.table("ledger")
    count = lambda label, k: int((table[label][k] or "0").replace(",", ""))
    for k, (split, entry) in enumerate(ledger.items()):
        assert table["ledger"][k] == split
        for unit in ("rows", "tokens"):
            dropped = sum(
                count(f"− {unit} dropped: {reason}", k) for reason in entry[unit]["dropped"]
            )
            assert (
                count(f"{unit} read", k)
                == entry[unit]["read"]
                == count(f"= {unit} kept", k) + dropped
            )
        assert count("= tokens kept", k) == count("of these trained", k) + count(
            "of these masked", k
        )
    assert "Every row and token is accounted for." in tree.texts["data"]
    ledger["train"]["rows"]["kept"] -= 1
    write_json(run / "ledger.json", ledger)
    _, tree = written(run)
    assert (
        "Does not add up: train: rows read 5,000 ≠ kept 4,869 + dropped 130." in tree.texts["data"]
    )


def test_histograms_hold_every_example(tmp_path):
    _, tree = written(make(tmp_path))
    titles = [
        attrs["title"] for tag, attrs in tree.tags if attrs.get("title", "").endswith("examples")
    ]
    assert sum(int(title.split(": ")[1].split()[0].replace(",", "")) for title in titles) == 4870
    draw = np.random.default_rng(0)
    for _ in range(200):
        lengths = draw.integers(1, draw.integers(2, 500), draw.integers(1, 60))
        found = length_summary(lengths)
        edges, counts = found["histogram"]["edges"], found["histogram"]["counts"]
        assert counts == [
            int(((lengths >= low) & (lengths < high)).sum()) for low, high in pairwise(edges)
        ]
        assert sum(counts) == len(lengths) and len(counts) <= 25
        assert found["quantiles"]["p50"] in lengths and (found["min"], found["max"]) == (
            lengths.min(),
            lengths.max(),
        )


def test_losses_that_are_not_finite_are_marked_and_interrupt_the_line(tmp_path):
    run = make(tmp_path, broken=(7, 8, 300))
    text, tree = written(run)
    assert "not finite at 3 logged steps, first at step 7" in text and "× not finite (3)" in text
    assert [tag for tag, attrs in tree.tags if attrs.get("class") == "bad"] == [
        "i"
    ] * 3 * 2  # on both scales
    rows = [{"step": k, "kind": "train", "loss": "NaN" if k == 3 else 1.0 / k} for k in range(1, 6)]
    line = charts.charts(rows)[0].lines[0]
    assert line.path.count("M") == 2 and line.path.count("L") == 2 and line.bad == [50.0]
    assert charts.charts([{"step": 1, "kind": "train", "loss": "NaN"}])[0].broken == 1


def test_points_lie_where_their_ticks_say():
    rows = [{"step": k, "kind": "train", "loss": 0.5 * k} for k in range(0, 11)]
    chart = charts.charts(rows)[0]
    y_of, x_of = (
        {float(text): at for at, text in chart.y_ticks},
        {int(text): at for at, text in chart.x_ticks},
    )
    points = [
        tuple(map(float, point.split()))
        for point in re.findall(r"[ML]([\d. ]+)", chart.lines[0].path)
    ]
    for step, at in x_of.items():
        assert points[step][0] == pytest.approx(10 * at, abs=0.1)
    for value, at in y_of.items():
        if value * 2 in range(11):
            assert points[int(value * 2)][1] == pytest.approx(10 * at, abs=0.1)
    log = charts.charts([{"step": k, "kind": "train", "loss": 10.0 ** (1 - k)} for k in range(5)])[
        0
    ]
    assert log.note == "log scale" and [text for _, text in log.y_ticks] == [
        "0.001",
        "0.01",
        "0.1",
        "1",
        "10",
    ]
    np.testing.assert_allclose([at for at, _ in log.y_ticks], [100, 75, 50, 25, 0])


def test_the_loss_is_there_on_the_other_scale_too():
    rows = [{"step": k, "kind": "train", "loss": 3.0 - k / 10} for k in range(5)]
    loss = charts.charts(rows)[0]
    assert loss.note == "" and loss.other.note == "log scale" and loss.other.other is None
    assert [text for _, text in loss.other.y_ticks] == ["1", "10"]
    assert charts.charts([*rows, {"step": 9, "kind": "train", "loss": 0.0}])[0].other is None
    rows = [{"step": k, "kind": "train", "loss": 10.0 ** (1 - k)} for k in range(5)]
    assert charts.charts(rows)[0].other.note == ""


def test_a_long_curve_keeps_its_spikes_and_stays_small():
    rows = [{"step": k, "kind": "train", "loss": 9.0 if k == 7777 else 1.0} for k in range(20_000)]
    raw = charts.charts(rows)[0].lines[0]
    assert (
        raw.path.count("L") <= charts.POINTS + 2
        and min(float(y) for y in re.findall(r" ([\d.]+)", raw.path)) < 150
    )


def test_an_unfinished_run_says_so(tmp_path):
    run = make(tmp_path)
    (run / "result.json").unlink()
    text, tree = written(run)
    assert (
        "This run is unfinished." in text
        and "up to step 400" in text
        and "The newest validation, at step 400" in tree.texts["results"]
    )
    readme = card.write_card(run).read_text("utf-8")
    assert "This run is unfinished" in readme and "model-index" not in readme
    assert "unfinished" in outputs.markdown_report.write_report(run).read_text("utf-8")


def test_missing_and_damaged_files_cost_their_section_only(tmp_path):
    write_text(tmp_path / "metrics.jsonl", "")
    text, _ = written(tmp_path)
    for words in (
        "ledger.json is missing",
        "No predictions",
        "config.yaml is missing",
        "manifest.json is missing",
        "No curves yet",
    ):
        assert words in text
    for name in ("ledger.json", "result.json", "config.yaml"):
        write_text(tmp_path / name, "{broken")
    write_json(tmp_path / "manifest.json", [])
    write_json(tmp_path / "figures" / "confusion_test.json", {"labels": ["a"]})
    text, tree = written(tmp_path)
    assert text.count("could not be written") >= 4 and {"results", "data", "files"} <= set(
        tree.texts
    )
    assert card.write_card(tmp_path).read_text("utf-8").count("could not be written") >= 2
    with pytest.raises(JaxsftError, match="not a run directory"):
        page.write_page(tmp_path / "figures")


def test_a_value_that_cannot_be_shown_costs_its_section_only(tmp_path):
    run = make(tmp_path, ["yes", "no"])
    rows = read_jsonl(run / "predictions" / "test.jsonl")
    write_text(
        run / "predictions" / "test.jsonl",
        "".join(json_text(row | {"probability": "often"}) + "\n" for row in rows),
    )
    text, tree = written(run)
    assert "could not be written: DataError" in text and {"results", "curves", "files"} <= set(
        tree.texts
    )


def test_the_card_says_what_the_files_say(tmp_path):
    run = make(tmp_path, ["好评", "差评"])
    write_json(
        run / "manifest.json", read_json(run / "manifest.json") | {"data": {"train": "b" * 64}}
    )
    write_json(run / "task.json", {"labels": ["好评", "差评"]})
    text = card.write_card(run).read_text("utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == "jaxsft" and front["pipeline_tag"] == "text-classification"
    found = {
        r["dataset"]["split"]: {m["type"]: m["value"] for m in r["metrics"]}
        for r in front["model-index"][0]["results"]
    }
    # its loss is NaN: no result
    assert found == {
        "test": {"accuracy": 0.9625, "loss": 0.1234567},
        "validation": {"accuracy": 0.97},
    }
    assert (
        "| train | `demo` | 5,000 | 4,870 | duplicate prompt: 100, no answer: 30 | 145,000 |"
        f" `{'b' * 64}` |" in text
    )
    assert (
        "`好评`, `差评`" in text
        and "| `loss` | 0.1235 | NaN |" in text
        and "There was no test split" in text
    )


def test_a_card_of_the_user_stays(tmp_path):
    run = make(tmp_path)
    assert card.write_card(run) == run / "README.md" and card.write_card(run) == run / "README.md"
    write_text(run / "README.md", "mine")
    assert card.write_card(run) is None and (run / "README.md").read_text() == "mine"
    assert [path.name for path in outputs.write_all(run)] == ["report.md", "report.html"]


def test_options_are_compared_with_the_defaults_of_the_task(tmp_path):
    run = make(tmp_path, ["a", "b"])
    assert {key: pair for key, *pair in facts.difference(run)} == {
        "data.path": ["rows/demo", None], "train.duration": ["400steps", "10epochs"],
        "seed": [3, 0],
    }  # fmt: skip
    write_text(run / "config.yaml", "task: {name: other}")
    assert "no task of this version" in written(run)[0]


def test_a_page_is_the_same_when_it_is_written_again(tmp_path):
    run = make(tmp_path, ["a", "b"])
    outputs.write_all(run)
    first = (run / "report.html").read_bytes()
    outputs.write_all(run)
    assert (run / "report.html").read_bytes() == first and len(
        read_jsonl(run / "predictions" / "test.jsonl")
    ) == 40


def test_axes_fit_what_is_drawn():
    rows = [
        {
            "step": k,
            "kind": "train",
            "loss": 3.5 + k / 10,
            "grad_norm": 1.0,
            "mfu": "unknown",
            "tokens_per_second": 9.0,
        }
        for k in range(5)
    ]
    rows += [{"step": 4, "kind": "validation", "loss": 3.6, "f1": 0.0, "words": 9, "rows": 3}]
    found = {chart.title: chart for chart in charts.charts(rows)}
    # counts are no curves, nor is what is unknown
    assert list(found) == ["Loss", "Validation: f1", "Gradient norm", "Tokens per second"]
    assert (
        float(found["Loss"].y_ticks[0][1]) > 3 and float(found["Gradient norm"].y_ticks[0][1]) == 0
    )
    ends = [float(found["Validation: f1"].y_ticks[k][1]) for k in (0, -1)]
    assert ends == [0, 1]
    assert found["Loss"].lines[0].points[0] == (0, 100, "training 3.5 at step 0")


def test_wrong_predictions_are_open_and_the_chosen_metric_is_marked(tmp_path):
    run = make(tmp_path, ["a", "b"])
    text = (run / "config.yaml").read_text()
    write_text(
        run / "config.yaml",
        yaml.safe_dump(yaml.safe_load(text) | {"evaluation": {"metric": "validation/loss"}}),
    )
    text, tree = written(run)
    assert (
        "5 of 5 wrong ones are shown" in " ".join(tree.texts["samples"].split())
        and "Right and wrong: 10 of 40" in tree.texts["samples"]
    )
    assert tree.texts["results"].index("chose the checkpoint") < tree.texts["results"].index(
        "accuracy"
    )
    assert "losschosenby" in re.sub(r"\s", "", tree.texts["numbers"])


def test_thirteen_classes_keep_their_names(tmp_path):
    labels = [f"class {i}" for i in range(13)]
    _, tree = written(make(tmp_path, labels))
    assert next(t for t in tree.tables if "true" in t[0][0])[0][1:] == labels
