"""Perturbations of rows: pure functions of seed, row and strength, and safe for labels."""

import types

import numpy as np
import pytest

from jaxsft.data import perturb, perturbations
from jaxsft.data.formats import Row
from jaxsft.data.perturbations import PERTURBATIONS, Tables
from jaxsft.errors import ConfigError, DataError

TABLES = Tables({"good": ["fine", "of value"], "film": ["picture"]}, {"a": ["ein"], "it": ["es"]})
TEXT = "This is a good film, and it never bores me at all."
NAMES = list(PERTURBATIONS)
ALIGNED = [name for name in NAMES if PERTURBATIONS[name].aligned]


def changed(name: str, strength: float = 0.3, seed: int = 0, text=TEXT, line: int = 3):
    row = Row({"text": text, "label": "x"}, "folder/a.csv", line)
    new = perturbations.perturbed(row, ["text"], PERTURBATIONS[name], strength, seed, TABLES)
    assert new.fields["label"] == "x" and row.fields["text"] == text
    return new.fields["text"]


@pytest.mark.parametrize("name", NAMES)
def test_pure_function(name):
    assert changed(name) == changed(name) != TEXT
    assert changed(name).strip()
    # of the row, and not of what is asked before it
    changed(name, seed=5)
    assert changed(name) == changed(name)


@pytest.mark.parametrize("name", ["noise", "keyboard", "delete", "swap", "spaces"])
def test_seed_and_row_decide(name):
    assert len({changed(name, seed=seed) for seed in range(8)}) > 4
    assert len({changed(name, line=line) for line in range(8)}) > 4


@pytest.mark.parametrize("name", ["case", "homoglyphs", "keyboard"])
def test_strength_is_a_share(name):
    """The number of changed characters grows with the strength, from one."""
    short = "a good film it is"
    apart = [
        sum(a != b for a, b in zip(changed(name, strength, text=short), short, strict=True))
        for strength in (0.01, 0.25, 0.5, 1.0)
    ]
    assert apart[0] == 1 and apart == sorted(apart) and apart[-1] > apart[0]
    if name == "case":
        assert changed("case", 1.0) == TEXT.swapcase()


def test_places_of_a_weak_noise_are_those_of_a_strong_one():
    weak, strong = changed("case", 0.1), changed("case", 0.5)
    where = lambda text: {i for i, (a, b) in enumerate(zip(text, TEXT, strict=True)) if a != b}
    assert where(weak) < where(strong)


@pytest.mark.parametrize("name", ALIGNED)
@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_aligned_ones_keep_words(name, strength):
    words = ["A", "good", "film", ",", "a", "!", "it"]
    row = Row({"tokens": words, "tags": ["O"] * 7}, "a.conll", 1)
    new = perturbations.perturbed(row, ["tokens"], PERTURBATIONS[name], strength, 0, TABLES).fields[
        "tokens"
    ]
    assert len(new) == len(words) and new != words
    assert all(word.strip() and len(word.split()) == 1 for word in new)


def test_the_others_are_refused_where_words_have_labels():
    for name in set(NAMES) - set(ALIGNED):
        with pytest.raises(ConfigError, match=f"{name}.*moves or removes words"):
            perturbations.named([name], TABLES, of_words=True)
        row = Row({"tokens": ["a", "b"]}, "a.conll", 1)
        with pytest.raises(DataError, match="list of words"):
            perturbations.perturbed(row, ["tokens"], PERTURBATIONS[name], 0.5, 0, TABLES)


def test_refusals():
    with pytest.raises(ConfigError, match="unknown; there are noise"):
        perturbations.named(["noises"], TABLES)
    with pytest.raises(ConfigError, match=r"robustness\.lexicon=FILE"):
        perturbations.named(["synonyms"], Tables())
    with pytest.raises(ConfigError, match="twice"):
        perturbations.named(["case", "case"], TABLES)
    with pytest.raises(DataError, match=r"a.csv:1: column 'text' is neither"):
        row = Row({"text": 3}, "a.csv", 1)
        perturbations.perturbed(row, ["text"], PERTURBATIONS["case"], 0.5, 0, TABLES)


def test_only_users_are_changed_in_a_conversation():
    messages = [
        {"role": "system", "content": "be good"},
        {"role": "user", "content": "tell me a story"},
        {"role": "assistant", "content": "once there was"},
    ]
    row = Row({"messages": messages}, "a.jsonl", 1)
    new = perturbations.perturbed(
        row, ["messages"], PERTURBATIONS["keyboard"], 0.5, 0, TABLES
    ).fields["messages"]
    assert [a == b for a, b in zip(new, messages, strict=True)] == [True, False, True]


def spec(**facts):
    base = {"output": "label", "of_words": False, "conversations": False, "name": "x"}
    records = types.SimpleNamespace(inputs=lambda columns: columns.inputs)
    return types.SimpleNamespace(**base | facts, records=records)


def test_columns_that_are_changed():
    columns = types.SimpleNamespace(
        tokens=None, features=["age"], messages=None, inputs=["question", "context", "age"]
    )
    row = Row({"question": "a", "context": "b", "age": 3, "form": ["a"]}, "a.csv", 1)
    of = lambda s: perturbations.columns_of(row, s, columns)
    assert of(spec()) == ["question", "context"]
    # the places of answers are those of the context
    assert of(spec(output="stretch")) == ["question"]
    assert of(spec(of_words=True)) == ["form"]
    with pytest.raises(ConfigError, match="learns the text that it reads"):
        of(spec(output="continuation"))
    columns.inputs = ["text"]
    with pytest.raises(ConfigError, match=r"a.csv:1: found none .*robustness.columns"):
        of(spec())


# --- edits
# --------------------------------------------------------------------------------------------------
def edited(edit, *more, text="one two three four"):
    lead, units = perturb.units_of(text)
    return perturb.joined(lead, edit(units, *more))[0]


def test_edits_of_words():
    rng = np.random.default_rng(0)
    assert edited(perturb.truncate, 1) == "one two three"
    assert edited(perturb.truncate, 9) == "one"
    longer = edited(perturb.repeat, 2, rng).split()
    assert len(longer) == 6 and set(longer) == {"one", "two", "three", "four"}
    spaced = edited(perturb.respace, 4, rng)
    assert spaced != "one two three four" and spaced.replace(" ", "") == "onetwothreefour"
    assert edited(perturb.distract, 4, rng, ["it rains ."]) == (
        "one two three four it rains .it rains ."
    ).replace(".it", ". it")
    assert edited(perturb.punctuate, 1, rng, text="end.") == "end"
    assert edited(perturb.punctuate, 1, rng, text="end") in {f"end{mark}" for mark in perturb.MARKS}
    assert edited(perturb.punctuate, 1, rng, text="!") in set(perturb.MARKS) - {"!"}


def test_homoglyphs_are_other_letters():
    for letter, others in perturb.HOMOGLYPHS.items():
        assert letter.isascii() and all(len(o) == 1 and not o.isascii() for o in others)
