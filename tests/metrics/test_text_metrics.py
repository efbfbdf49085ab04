"""What holds of all metrics of texts: weights, compiled programs, the page that describes them."""

import dataclasses
import re

import pytest

from jaxsft.metrics import (
    answers,
    chunks,
    entities,
    json_answers,
    numeric_answers,
    repetition,
    rouge,
    text_overlap,
    token_scores,
    tool_calls,
    words,
)
from tests.docs import pages
from tests.metrics.answered import WORDS, answered, corpus, odd
from tests.metrics.properties import check

FILES = (answers, json_answers, numeric_answers, repetition, rouge, text_overlap, tool_calls)
OF_TEXTS = {
    name: metric
    for file in FILES
    for name, metric in file.METRICS.items()
    if set(metric.needs) <= {"answer", "references"}
}
DESCRIBED = [
    (name, metric)
    for file in (*FILES, chunks, entities, token_scores, words)
    for name, metric in file.METRICS.items()
]


@pytest.mark.parametrize("name", OF_TEXTS)
@pytest.mark.parametrize("tokenizer", ["13a", "zh"])
def test_weights_and_compiled_programs(name, tokenizer):
    """Of random texts in several scripts."""
    pytest.importorskip("sacrebleu")
    if name == "rouge_score_stemmed":
        pytest.importorskip("rouge_score")
    outputs = answered(*corpus(11, 9, WORDS), tokenizer=tokenizer)
    check(OF_TEXTS[name], outputs, seed=1)


@pytest.mark.parametrize("name", OF_TEXTS)
def test_a_signature_names_the_tokenizer(name):
    pytest.importorskip("sacrebleu")
    metric, outputs = OF_TEXTS[name], dataclasses.replace(odd(), tokenizer="zh")
    if metric.signature and name not in ("chrf", "ter", "rouge_score", "rouge_score_stemmed"):
        assert "tok:zh" in metric.signature(outputs).split("|")


def test_the_page_describes_every_metric_and_number():
    page = pages.text("text_metrics.md")
    named = set(re.findall(r"`(\w+)", page))
    known = lambda number: (
        number in named
        or re.sub(r"^(strict|exact|partial|type)_", "SCHEMA_", number) in named
        or re.sub(r"(macro|micro|weighted)$", "", number) in named
    )
    for name, metric in DESCRIBED:
        assert name in named, f"docs/text_metrics.md: {name} is missing"
        assert all(map(known, metric.names)), f"docs/text_metrics.md: a number of {name} is missing"
