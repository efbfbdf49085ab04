"""What an evaluation reads from the device: numbers of rows and words, never of a token or of a
logit over the vocabulary.
"""

import math

import jax
import jax.numpy as jnp
import pytest

from jaxsft.data.records import Pair, Question
from tests.conftest import LABELS, bench

TASKS = ("chat", "lm", "seq2seq", "classify", "multilabel", "regress", "pair", "tag", "joint")
ASKED = [Question("what", "a b c", ("b",), (2,)), Question("who", "d e", ("e",), (2,))]
PAIRS = [Pair("a", "b"), Pair("c", "d")]
ARCS = {"arcs", "relations", "segment"}  # from which the host finds the best tree


def columns_of(name, records=None, **options):
    """Returns (texts, words, columns) by their shapes: the program is traced, not compiled."""
    given = {"records": (records, ["a:1", "a:2"])} if records else {}
    b = bench(name, 4, longest=16, model={"layers": 1}, **given, **options)
    batch = b.batches[0]
    columns = jax.eval_shape(b.program.evaluate, *b.apart, batch, b.hyper)[1]
    words = None if batch.words is None else batch.words["segment"].shape
    return batch.example_ids.shape, words, columns


def check(texts, words, columns, but=()):
    for name, x in columns.items():
        if name.startswith("word."):
            assert x.shape == words and x.dtype == jnp.int32, name
        elif name not in but:
            assert x.shape[:2] == texts, name
            assert math.prod(x.shape[2:]) <= len(LABELS), name  # a score of each label


@pytest.mark.parametrize("name", (*TASKS, "span", "parse"))
def test_numbers_of_rows_and_words_leave_the_device(name):
    options = {"task": {"decode": "greedy"}} if name == "parse" else {}
    texts, words, columns = columns_of(name, ASKED if name == "span" else None, **options)
    assert columns
    check(texts, words, columns)


def test_the_best_tree_is_found_from_the_scores_of_all_arcs():
    texts, words, columns = columns_of("parse")
    assert set(columns) >= ARCS
    check(texts, words, columns, but=ARCS)


def test_pairs_of_neither_label_nor_score_leave_their_two_vectors():
    """Each is ranked among all texts of the split."""
    texts, _, columns = columns_of("pair", PAIRS, task={"loss": "contrastive", "encoder": "bi"})
    assert {name: x.shape for name, x in columns.items()} == {"vectors": (*texts, 2, 16)}
