"""Docstrings begin with what their function does, and no name stands twice."""

import ast
import collections
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[2] / "jaxsft"
# Words in -s that are no verb in the third person.
NOUNS = frozenset(
    """
    Always Answers Beams Components Durations Versions
    Arcs Arguments Arrays As Blocks Buckets Caches Characters Chips Chunks
    Classes Coefficients Continuations Corpus Cosines Does Duplicates Edges Embeddings Errors
    Findings Floats Has Hubs Ids Is Items Its Keys Labels Less Lines Logits Loss Metrics Minus
    Names Neighbours Nodes Numbers Options Ours Outputs Parameters Parts Plus Positions
    Probabilities Questions Rows Rules Scores Sentences Sizes Spans Strings Tabs Tags This Thus
    Tokens Vectors Weights Windows Words
    """.split()  # noqa: SIM905 - a list would take sixty lines
)
# Names that stand twice: of a task and of its options.
TWICE = {
    "MultiLabelTask": 2,
    "PairTask": 2,
    "Seq2SeqTask": 2,
    "SpanTask": 2,
    "TextTask": 2,
}


def sources() -> list[pathlib.Path]:
    return sorted(PACKAGE.rglob("*.py"))


def begins_with_verb(docstring: str) -> bool:
    """Returns whether the first word is a capitalised verb in the third person."""
    word = docstring.split()[0].rstrip(".,:;")
    return word.isalpha() and word[0].isupper() and word.endswith("s") and word not in NOUNS


def without_verb(path: pathlib.Path) -> list[str]:
    """Returns the functions of a file whose docstring begins otherwise, as `file:line name`."""
    return [
        f"{path.relative_to(PACKAGE.parent)}:{node.lineno} {node.name}: {docstring.splitlines()[0]}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (docstring := ast.get_docstring(node)) is not None
        and not begins_with_verb(docstring)
    ]


def test_docstrings_begin_with_a_verb():
    found = [line for path in sources() for line in without_verb(path)]
    assert not found, "\n".join(found)


def test_no_class_name_stands_twice():
    counts = collections.Counter(
        node.name
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert {name: n for name, n in counts.items() if n > 1} == TWICE


def test_no_file_name_stands_twice():
    counts = collections.Counter(path.name for path in sources() if path.name != "__init__.py")
    assert [name for name, n in counts.items() if n > 1] == []


@pytest.mark.parametrize(
    "docstring, good",
    [
        ("Returns an empty K/V cache for each layer.", True),
        ("Raises ConfigError where it is none.", True),
        ("Of every layer.", False),
        ("Return the manifest.", False),
        ("Logits of every word.", False),
        ("`[B, S]`: the labels.", False),
    ],
)
def test_what_counts_as_a_verb(docstring, good):
    assert begins_with_verb(docstring) is good
