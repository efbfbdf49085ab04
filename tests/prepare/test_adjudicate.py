import csv
import gzip
from collections import Counter, defaultdict

import numpy as np
import pytest

from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import adjudicate, annotation_report
from jaxsft.prepare.annotation import Annotation, Work
from jaxsft.prepare.annotation_schema import Label, Schema
from tests.realdata import real

CLASS = Schema("class", (Label("a"), Label("b"), Label("c")))
MULTI = Schema("multi_label", (Label("a"), Label("b")))
SPAN = Schema("span", (Label("PER"), Label("LOC")))


def work(**by):
    """annotator=values in the order of items i0, i1, ...; None: skipped; `...`: never saw it."""
    return Work(
        tuple(
            Annotation(f"i{i}", name, v)
            for name, values in by.items()
            for i, v in enumerate(values)
            if v is not ...
        ),
        {},
    )


def test_a_majority_decides_and_a_tie_is_marked():
    found = adjudicate.adjudicate(
        work(x="abaa", y="abbb", z=["a", "c", "c", ...], w=["b", "b", "c", None]), CLASS, "majority"
    ).decisions
    assert [(d.value, d.status) for d in found] == [
        ("a", "majority"),
        ("b", "majority"),
        ("c", "plurality"),
        (None, "tie"),
    ]
    assert (
        found[3].candidates == ("a", "b")
        and found[3].confidence == 0.5
        and found[0].confidence == 0.75
    )
    assert [
        d.status
        for d in adjudicate.adjudicate(work(x="ab", y=["a", ...]), CLASS, "majority").decisions
    ] == ["unanimous", "single"]


def test_parts_are_decided_one_by_one():
    per, loc, near = (0, 4, "PER"), (9, 12, "LOC"), (0, 5, "PER")
    found = adjudicate.adjudicate(
        work(x=[(per, loc)], y=[(per,)], z=[(near, loc)]), SPAN, "majority"
    ).decisions
    assert (
        found[0].value == (per, loc)
        and found[0].status == "majority"
        and found[0].confidence == pytest.approx(2 / 3)
    )
    two = adjudicate.adjudicate(work(x=[(per, loc)], y=[(per,)]), SPAN, "majority").decisions[0]
    assert two.value is None and two.status == "tie" and two.candidates == ((per,), (per, loc))
    relation = Schema("relation", SPAN.labels, (Label("in"),))
    full, bare = ((per, loc), ((per, "in", loc),)), ((per, loc), ())
    assert (
        adjudicate.adjudicate(work(x=[full], y=[full], z=[bare]), relation, "majority")
        .decisions[0]
        .value
        == full
    )
    assert adjudicate.adjudicate(work(x=[full], y=[((), ())]), relation, "majority").decisions[
        0
    ].candidates == (((), ()), full)


def test_the_model_believes_the_annotator_who_is_right():
    """Two who guess and two who are fair can outvote the one who knows; Dawid-Skene tells them
    apart. The same of multi_label, label by label.
    """
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 300)
    answers = lambda skill: np.where(rng.random(300) < skill, true, rng.integers(0, 3, 300))
    given = {
        "knows": answers(0.98),
        "fair": answers(0.8),
        "fair_too": answers(0.8),
        "guesses": answers(0.1),
        "guesses_too": answers(0.1),
    }
    names = np.array(CLASS.names)
    done = work(**{name: [*names[values]] for name, values in given.items()})
    right = {}
    for method in adjudicate.METHODS:
        found = adjudicate.adjudicate(done, CLASS, method)
        assert [d.item for d in found.decisions] == [f"i{i}" for i in range(300)]
        right[method] = np.mean(
            [d.value == names[t] for d, t in zip(found.decisions, true, strict=True)]
        )
    assert right["dawid_skene"] > 0.95 > right["majority"] + 0.03
    assert found.accuracy["knows"] > found.accuracy["fair"] > found.accuracy["guesses"] + 0.2
    labels = work(
        **{
            name: [tuple(n for n in "ab" if n == names[v]) for v in values]
            for name, values in given.items()
        }
    )
    multi = adjudicate.adjudicate(labels, MULTI, "dawid_skene")
    assert (
        np.mean(
            [
                d.value == tuple(n for n in "ab" if n == names[t])
                for d, t in zip(multi.decisions, true, strict=True)
            ]
        )
        > 0.95
    )


def test_the_model_marks_what_nothing_tells_apart():
    found = adjudicate.adjudicate(work(x="abab", y="baba"), CLASS, "dawid_skene")
    assert {d.status for d in found.decisions} == {"tie"} and {
        d.value for d in found.decisions
    } == {None}
    with pytest.raises(ConfigError, match="dawid_skene needs classes, and type span has none"):
        adjudicate.adjudicate(work(x=[()]), SPAN, "dawid_skene")
    with pytest.raises(ConfigError, match="method='best' is unknown"):
        adjudicate.adjudicate(work(x="a"), CLASS, "best")


def test_spans_agree_exactly_or_overlap():
    a, b = (
        [(0, 4, "PER"), (5, 9, "PER"), (20, 22, "LOC")],
        [
            (0, 9, "PER"),
            (20, 22, "LOC"),
            (30, 31, "LOC"),
        ],
    )
    # (0, 9) has one partner
    assert adjudicate.matched(a, b, "exact") == 1 and adjudicate.matched(a, b, "overlap") == 2
    given = ({"i": tuple(a)}, {"i": tuple(b), "j": ()})
    assert adjudicate.part_f1(*given, SPAN) == pytest.approx(2 * 1 / 6)
    assert adjudicate.part_f1(*given, SPAN, "overlap") == pytest.approx(2 * 2 / 6)
    assert adjudicate.part_f1({"i": ()}, {"i": ()}, SPAN) is None


def test_the_report_counts_what_a_hand_counts():
    done = work(x=["a", "b", "c", None], y=["a", "b", "b", "a"], z=["a", "a", "c", "a"])
    timed = tuple(
        (
            Annotation(a.item, a.annotator, a.value, 3.0 if a.item == "i0" else 5.0)
            if a.annotator == "x"
            else a
        )
        for a in done.annotations
    )
    done = Work(timed, {}, ("i9",))
    found = annotation_report.report(
        done,
        CLASS,
        adjudicate.adjudicate(done, CLASS, "majority"),
        gold={"i0": "a", "i1": "b", "i2": "b"},
    )
    x, z = found["annotators"]["x"], found["annotators"]["z"]
    assert (x["items"], x["skipped"], found["untouched"], found["annotations"]) == (3, 1, 1, 11)
    assert x["with_gold"] == {"items": 3, "accuracy": pytest.approx(2 / 3)} and z["with_gold"][
        "accuracy"
    ] == pytest.approx(1 / 3)
    assert x["with_decisions"] == {"items": 3, "accuracy": 1.0}
    assert x["confusion"] == {"a": {"a": 1}, "b": {"b": 1, "c": 1}}
    assert x["seconds"] == {"median": 5.0, "total": 18.0, "items": 4} and z["seconds"] is None
    # with y and with z, two of three each
    assert x["agreement"]["percent"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    page = annotation_report.markdown(found)
    assert "| b | 0 | 1 | 1 |" in page and "1 items were not annotated by anybody" in page
    with pytest.raises(DataError, match="none of its 1 items was annotated"):
        annotation_report.report(
            done, CLASS, adjudicate.adjudicate(done, CLASS, "majority"), gold={"other": "a"}
        )


def test_the_report_of_spans():
    per, loc, near = (0, 4, "PER"), (9, 12, "LOC"), (0, 5, "PER")
    done = work(x=[(per, loc)], y=[(per,)], z=[(near, loc)])
    found = annotation_report.report(done, SPAN, adjudicate.adjudicate(done, SPAN, "majority"))
    assert found["annotators"]["z"]["confusion"] == {
        "LOC": {"found": 1, "missed": 0, "extra": 0, "nearly": 0},
        "PER": {"found": 0, "missed": 1, "extra": 1, "nearly": 1},
    }
    assert found["agreement"] == {
        "f1_exact_mean": pytest.approx((2 / 3 + 1 / 2 + 0) / 3),
        "f1_overlap_mean": pytest.approx((2 / 3 + 1 + 2 / 3) / 3),
    }
    assert "as decided" in annotation_report.markdown(found)


def test_names_cannot_break_the_page():
    done = work(**{"<b>x</b>|y": "ab", "z": "ab"})
    page = annotation_report.markdown(
        annotation_report.report(done, CLASS, adjudicate.adjudicate(done, CLASS, "majority"))
    )
    assert "<b>" not in page and "\\<b\\>x\\</b\\>\\|y" in page


def test_real_readers_of_emotions_tie_often():
    """EmoBank's readers are not named, so each text's k-th rating is reader k; a majority of whole
    ratings is nearer to the published mean than one reader's.
    """
    ratings = defaultdict(list)
    with gzip.open(real("emobank/individual_reader_ratings.csv.gz"), "rt") as file:
        for row in csv.DictReader(file):
            ratings[row["id"]].append(int(row["V"]))
    with gzip.open(real("emobank/emobank.csv.gz"), "rt", encoding="utf-8") as file:
        mean = {row["id"]: float(row["V"]) for row in csv.DictReader(file)}
    schema = Schema("rating", scale=(1, 5))
    done = Work(
        tuple(
            Annotation(i, str(k), v) for i, values in ratings.items() for k, v in enumerate(values)
        ),
        {},
    )
    decisions = adjudicate.adjudicate(done, schema, "majority").decisions
    statuses = Counter(d.status for d in decisions)
    assert len(decisions) == len(ratings) and 0.05 < statuses["tie"] / len(decisions) < 0.3
    both = [d for d in decisions if d.value is not None and d.item in mean]
    decided = np.mean([abs(d.value - mean[d.item]) for d in both])
    # the mean holds this very rating, and yet it is further away
    first = np.mean([abs(ratings[d.item][0] - mean[d.item]) for d in both])
    assert len(both) > 8000 and decided < 0.85 * first
