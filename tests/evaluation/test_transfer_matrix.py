"""The transfer matrix of models and sets, and rows that are the same sentences."""

import numpy as np
import pytest

from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation import transfer_matrix
from jaxsft.evaluation.compare import Settings
from jaxsft.evaluation.measured import measure
from jaxsft.evaluation.perturbed_runs import ScoredRows
from jaxsft.metrics.base import Outputs

ROWS = 300


def scored(right, rows=ROWS, name="x"):
    """Rows of which a model has a share right, among them those of a smaller share."""
    gold = np.arange(rows) % 2
    predicted = np.where(np.random.default_rng(0).random(rows) < right, gold, 1 - gold)
    outputs = Outputs(np.arange(rows), {"label": gold, "predicted": predicted}, ["a", "b"])
    records = [{"text": f"{name} {i}"} for i in range(rows)]
    where = [f"{name}:{i}" for i in range(rows)]
    return ScoredRows(where, records, measure(["label_scores"], [], outputs, "x"), None, None, {})


SHARES = {("de", "de"): 0.9, ("en", "de"): 0.6, ("de", "en"): 0.7, ("en", "en"): 0.85}


@pytest.fixture(scope="module")
def sets():
    return {s: {m: scored(SHARES[m, s], name=s) for m in ("de", "en")} for s in ("de", "en")}


def accuracy(one):
    return one.measured["label_scores"].numbers()["accuracy"]


def test_cells_gain_and_gaps(sets):
    found = transfer_matrix.matrix(sets, "accuracy", Settings(replicates=200))
    cells = found["cells"]
    values = {(m, s): accuracy(sets[s][m]) for m in sets for s in sets}
    assert {(m, s): c["value"] for m, row in cells.items() for s, c in row.items()} == values
    assert [cells[m][s]["own"] for m, s in SHARES] == [True, False, False, True]
    gains = [
        values["de", "de"] - values["en", "de"],
        values["en", "en"] - values["de", "en"],
    ]
    of = found["gain"]
    assert [of["sets"][s]["value"] for s in ("de", "en")] == pytest.approx(gains)
    assert of["mean"]["value"] == pytest.approx(np.mean(gains))
    assert 0 < of["mean"]["low"] < np.mean(gains) < of["mean"]["high"]
    gap = found["gaps"]["de"]
    assert (gap["best"], gap["worst"]) == ("de", "en")
    assert gap["best_minus_worst"]["value"] == pytest.approx(
        values["de", "de"] - values["de", "en"]
    )


def test_the_standard_error_of_the_gain_is_that_of_the_paired_rows(sets):
    found = transfer_matrix.matrix(sets, "accuracy", Settings(replicates=1000))["gain"]
    hits = lambda one: np.diff(
        [0, *np.cumsum([one.measured["label_scores"].of(np.arange(ROWS) == i).numbers()["accuracy"]
                        for i in range(ROWS)])]
    )  # fmt: skip
    apart = hits(sets["de"]["de"]) - hits(sets["de"]["en"])
    assert found["sets"]["de"]["se"] == pytest.approx(apart.std() / np.sqrt(ROWS), rel=0.1)


def test_the_same_sentences_are_drawn_together():
    """A model that is right on nearly the same sentences in both languages has a gap that is well
    known; on sets without a sentence in common it is not."""
    one = {"de": {"m": scored(0.75, name="de")}, "en": {"m": scored(0.7, name="en")}}
    ids = {s: {f"{s}:{i}": str(i) for i in range(ROWS)} for s in one}
    alone = transfer_matrix.matrix(one, "accuracy", Settings(replicates=200))
    paired = transfer_matrix.matrix(one, "accuracy", Settings(replicates=200), ids)
    gaps = [x["gaps"]["m"]["best_minus_worst"] for x in (alone, paired)]
    assert alone["gain"] is None and gaps[0]["value"] == gaps[1]["value"] > 0
    assert gaps[0]["low"] == 0 < gaps[1]["low"] and gaps[1]["high"] < gaps[0]["high"]
    assert paired["cells"]["m"]["de"]["low"] == alone["cells"]["m"]["de"]["low"]


def test_one_model_has_no_gain_and_an_unknown_number_is_told(sets):
    alone = {s: {"de": models["de"]} for s, models in sets.items()}
    assert transfer_matrix.matrix(alone, "accuracy", Settings(replicates=100))["gain"] is None
    with pytest.raises(ConfigError, match="metrics=f7: is no number"):
        transfer_matrix.matrix(sets, "f7", Settings(replicates=100))


# --- parallel rows
# --------------------------------------------------------------------------------------------------
def rows(name, ids):
    return [Row({"id": one, "text": "x"}, f"{name}.jsonl", i) for i, one in enumerate(ids, 1)]


def test_ids_of_parallel_rows():
    sets = {"de": rows("de", ["a", "b"]), "en": rows("en", ["b", "a"])}
    assert transfer_matrix.aligned(sets, "id")["en"] == {"en.jsonl:1": "b", "en.jsonl:2": "a"}
    assert list(transfer_matrix.aligned(sets, "order")["en"].values()) == ["1", "2"]


@pytest.mark.parametrize(
    ("column", "de", "en", "message"),
    [
        ("id", "abc", "acb"[:2], "id=b of de is not in en, as 1 of its 3 rows"),
        ("id", "ab", "axyb", "id=x of en is not in de, as 2 of its 4 rows"),
        ("order", "abc", "ab", "row 3 of de is not in en"),
        ("id", "ab", "aa", "en.jsonl:2: id=a occurs twice"),
        ("sent", "ab", "ab", "has no column 'sent'"),
    ],
)
def test_files_that_are_not_parallel(column, de, en, message):
    with pytest.raises(DataError, match=message):
        transfer_matrix.aligned({"de": rows("de", de), "en": rows("en", en)}, column)
