"""Schemas of entity errors against nervaluate, and by hand."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.errors import DataError
from jaxsft.metrics import chunks, entities
from jaxsft.metrics.base import Outputs, measure
from tests.metrics.properties import check
from tests.metrics.tagged import TYPES, VOCABULARY, drawn, tagged

METRICS = entities.METRICS
NUMBERS = (*entities.OUTCOMES, *entities.SCORES)


def check_with_nervaluate(outputs, metric, gold, predicted, types):
    evaluator = pytest.importorskip("nervaluate").Evaluator
    as_dicts = lambda rows: [
        [{"label": t, "start": s, "end": e - 1} for s, e, t in row] for row in rows
    ]
    if not any(gold) and not any(predicted):
        return
    theirs = evaluator(as_dicts(gold), as_dicts(predicted), list(types), loader="dict").evaluate()
    ours = measure(metric, outputs)
    state = metric.reduce(metric.observe(outputs), np.ones(len(outputs)))
    each = metric.each(state)
    for schema in entities.SCHEMAS:
        key = "ent_type" if schema == "type" else schema
        of_types = {type_: found[key] for type_, found in theirs["entities"].items()}
        for name in NUMBERS:
            expected = getattr(theirs["overall"][key], name)
            assert ours[f"{schema}_{name}"] == pytest.approx(expected, abs=1e-12), (schema, name)
            for i, type_ in enumerate(types):
                expected = getattr(of_types[type_], name) if type_ in of_types else 0
                got = each[f"{schema}_{name}"][i]
                assert got == pytest.approx(expected, abs=1e-12), (schema, name, type_)


def spans_of(outputs, name):
    row, out = outputs["word.row"], [[] for _ in range(len(outputs))]
    names = chunks.types(outputs.labels)
    for start, end, type_ in zip(*chunks.lenient(outputs[name], row, outputs.labels), strict=True):
        out[row[start]].append((int(start), int(end), names[type_]))
    return out


@pytest.mark.parametrize("name", ["iob2", "iobes"])
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_tags_count_as_in_nervaluate(name, data):
    gold, predicted = zip(*data.draw(drawn(name, longest=20, rows=3)), strict=True)
    outputs = tagged(gold, predicted, name)
    both = (spans_of(outputs, f"word.{x}") for x in ("tag", "predicted"))
    check_with_nervaluate(outputs, METRICS["entity_schemas"], *both, TYPES)


def drawn_spans(rng, length, longest, gap):
    """Entities that do not overlap, long and short ones."""
    out, at = [], int(rng.integers(0, gap))
    while at < length:
        end = at + 1 + int(rng.integers(0, longest) * rng.random() ** 3)
        out.append((at, end, TYPES[rng.integers(0, 3)]))
        at = end + int(rng.integers(0, gap))
    return out


@settings(max_examples=40, deadline=None)
@given(rows=drawn("iob2"))
def test_tags_that_no_scheme_allows_are_read_as_nervaluate_reads_them(rows):
    evaluator = pytest.importorskip("nervaluate").Evaluator
    gold, predicted = zip(*rows, strict=True)
    theirs = evaluator(list(gold), list(predicted), list(TYPES), loader="list").evaluate()
    ours = measure(METRICS["entity_schemas"], tagged(gold, predicted, "iob2"))
    for name in NUMBERS:
        expected = getattr(theirs["overall"]["strict"], name)
        assert ours[f"strict_{name}"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(24))
def test_spans_of_characters_count_as_in_nervaluate(seed):
    """With entities of hundreds of characters, whose overlap may be less than a hundredth."""
    rng = np.random.default_rng(seed)
    longest = [3, 10, 400, 2000][seed % 4]
    draw = lambda: [drawn_spans(rng, 900, longest, rng.integers(1, longest)) for _ in range(4)]
    gold, predicted = draw(), draw()
    table = lambda rows: np.array(
        [(i, s, e, TYPES.index(t)) for i, row in enumerate(rows) for s, e, t in row]
    ).reshape(-1, 4)
    outputs = Outputs(
        np.arange(4), {"span.gold": table(gold), "span.predicted": table(predicted)}, TYPES
    )
    check_with_nervaluate(outputs, METRICS["span_schemas"], gold, predicted, TYPES)
    if seed == 2:
        check(METRICS["span_schemas"], outputs)


def test_by_hand():
    gold = ["B-A", "I-A", "O", "B-B", "O", "B-C", "I-C", "O", "B-A", "O"]
    predicted = ["B-A", "I-A", "O", "B-C", "O", "B-C", "O", "O", "O", "B-B"]
    outputs = tagged([gold], [predicted], "iob2")
    assert measure(METRICS["entity_errors"], outputs) == {
        "boundary_errors": 1,
        "type_errors": 1,
        "boundary_and_type_errors": 0,
        "missed_errors": 1,
        "spurious_errors": 1,
    }
    found = measure(METRICS["entity_schemas"], outputs)
    outcomes = lambda schema: [found[f"{schema}_{name}"] for name in entities.OUTCOMES]
    assert outcomes("strict") == [1, 2, 0, 1, 1]
    assert outcomes("exact") == [2, 1, 0, 1, 1]
    assert outcomes("partial") == [2, 0, 1, 1, 1]
    assert outcomes("type") == [2, 1, 0, 1, 1]
    assert found["strict_f1"] == 2 * 1 / (4 + 4) and found["partial_recall"] == 2.5 / 4


def test_rows_do_not_touch_each_other():
    outputs = tagged([["O", "B-A"], ["I-A", "O"]], [["O", "O"], ["B-A", "O"]], "iob2")
    found = measure(METRICS["entity_schemas"], outputs)
    assert (found["strict_correct"], found["strict_missed"]) == (1, 1)


@pytest.mark.parametrize("metric", ["entity_schemas", "entity_errors"])
def test_weights_and_compiled_programs(metric):
    rng = np.random.default_rng(0)
    draw = lambda: [list(rng.choice(VOCABULARY["iobes"], 9)) for _ in range(7)]
    check(METRICS[metric], tagged(draw(), draw(), "iobes"))
    for gold, predicted in ((["B-A", "O"], None), (["O", "O"], ["O", "S-A"]), (["O"], ["O"])):
        numbers = measure(METRICS[metric], tagged([gold], [predicted], "iobes"))
        assert not any(np.isnan(list(numbers.values())))


def test_entities_that_overlap_are_refused():
    spans = np.array([[0, 0, 5, 0], [0, 4, 8, 0]])
    good = np.array([[0, 0, 5, 0]])
    outputs = lambda x: Outputs(np.array([17]), {"span.gold": good, "span.predicted": x}, TYPES)
    with pytest.raises(DataError, match=r"row 17: the predicted entity .* 4 to 8 overlaps another"):
        measure(METRICS["span_schemas"], outputs(spans))
    with pytest.raises(DataError, match=r"row 17: the predicted entity .* 4 to 4 is empty"):
        measure(METRICS["span_schemas"], outputs(np.array([[0, 4, 4, 0]])))
    assert measure(METRICS["span_schemas"], outputs(good))["strict_f1"] == 1


@pytest.mark.slow
def test_a_million_words_take_seconds():
    rng = np.random.default_rng(0)
    words = 1_000_000
    letters = np.tile([0, 0, 0, 1, 2, 0, 0, 0, 0, 1], words // 10)
    wrong = rng.random(words) < 0.05
    arrays = {
        "word.row": np.arange(words) // 20,
        "word.tag": letters,
        "word.predicted": np.where(wrong, rng.integers(0, 3, words), letters),
    }
    outputs = Outputs(np.arange(words // 20), arrays, ["O", "B-A", "I-A"], "iob2")
    start = time.perf_counter()
    measure(METRICS["entity_schemas"], outputs)
    assert time.perf_counter() - start < 20  # about one on an idle machine
