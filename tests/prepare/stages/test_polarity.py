import pytest

from jaxsft.data.formats import Row, read
from jaxsft.errors import ConfigError, DataError
from tests.prepare.harness import make, one, run, texts
from tests.realdata import real

ROWS = (
    {"text": "I love this wonderful movie", "label": "pos"},
    {"text": "A horrible, stupid disaster", "label": "pos"},
    {"text": "The film lasts two hours", "label": "neg"},
    {"text": "great great great", "label": "other"},
)


@pytest.mark.parametrize(
    ("method", "library"), [("vader", "vaderSentiment"), ("textblob", "textblob")]
)
def test_a_label_that_says_the_opposite_is_marked_or_dropped(method, library):
    pytest.importorskip(library)
    options = {"method": method, "labels": {"pos": 1, "neg": -1}}
    rows, report = one(make("polarity", **options), *ROWS)
    assert texts(rows, "marks") == ["", "polarity: polarity against the label", "", ""]
    assert (
        rows[0].fields["polarity"] > 0.3 > -0.3 > rows[1].fields["polarity"]
        and rows[2].fields["polarity"] == 0
    )
    assert report.marked == {"polarity against the label": 1}
    rows, report = one(make("polarity", action="drop", **options), *ROWS)
    assert [row.line for row in rows] == [1, 3, 4] and report.dropped == [
        ("rows.jsonl:2", "polarity against the label")
    ]


def test_subjectivity():
    pytest.importorskip("textblob")
    rows, _ = one(make("polarity", method="textblob", max_subjectivity=0.5, action="drop"), *ROWS)
    assert [row.line for row in rows] == [3]
    assert (
        one(
            make("polarity", method="textblob", max_subjectivity=rows[0].fields["subjectivity"]),
            ROWS[2],
        )[1].marked
        == {}
    )


def test_it_agrees_with_people_more_often_than_not():
    pytest.importorskip("vaderSentiment")
    archive = real("sentence_polarity_subjectivity/sentence_polarity.zip")
    rows = []
    for label in ("pos", "neg"):
        found = read(
            f"{archive}/sentence_polarity/rt-polarity.{label}", format="txt", encoding="latin-1"
        )[:300]
        rows += [
            Row({"text": row.fields["text"], "label": label}, row.file, row.line) for row in found
        ]
    out, reports = run(make("polarity", labels={"pos": 1, "neg": -1}, margin=0.3), {"train": rows})
    strong = [row for row in out["train"] if abs(row.fields["polarity"]) >= 0.3]
    assert 0 < reports["train"].marked.total() < 0.4 * len(strong)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "x"},
        {"labels": {"a": 0}},
        {"labels": {"a": True}},
        {"margin": 0.0},
        {"max_subjectivity": 0.5},
    ],
)
def test_impossible_options(options):
    with pytest.raises(ConfigError, match=r"stages.polarity"):
        make("polarity", **options)


def test_a_row_without_a_label_is_an_error():
    pytest.importorskip("vaderSentiment")
    with pytest.raises(DataError, match=r"missing column 'label'"):
        one(make("polarity", labels={"a": 1}), "text")
