"""Tests of behaviour: the file is checked, cases are counted, failures are what they say."""

import types

import pytest
import yaml

from jaxsft.errors import ConfigError
from jaxsft.evaluation import behavioural

FILE = {
    "slots": {"good": ["great", "fine"], "who": ["Anna", "Wei", "John"]},
    "tests": [
        {"name": "praise", "kind": "minimum", "templates": "it is {good}", "expect": "pos"},
        {
            "name": "names",
            "kind": "invariance",
            "templates": ["{who} is {good}", "{good} {{{who}}}"],
            "vary": "who",
        },
        {
            "name": "more",
            "kind": "direction",
            "templates": "{good}",
            "change": "very {good}",
            "label": "pos",
            "expect": "higher",
        },
    ],
}


def read(tmp_path, content):
    path = tmp_path / "tests.yaml"
    path.write_text(yaml.safe_dump(content))
    return behavioural.read(str(path))


class Fake:
    """Says neg of what John does and of texts with `fine` alone."""

    def __init__(self, of_words=False):
        spec = types.SimpleNamespace(output="label")
        self.task = types.SimpleNamespace(
            spec=spec, labels=["neg", "pos"], of_words=of_words, name="fake"
        )

    def predict(self, rows):
        share = [
            0.1 if "John" in r or "is fine" in r else 0.6 + 0.1 * r.count("very") for r in rows
        ]
        return [
            {"prediction": "pos" if p > 0.5 else "neg", "probabilities": {"pos": p, "neg": 1 - p}}
            for p in share
        ]


def test_cases_and_failures(tmp_path):
    praise, names, more = behavioural.run(read(tmp_path, FILE), Fake(), 0.95)
    assert (praise["cases"], praise["failures"]) == (2, 1)
    assert praise["examples"] == ["'it is fine': neg"]
    # a case is all names together: "is fine" is neg for all of them, else John differs
    assert (names["cases"], names["failures"]) == (4, 3)
    assert names["examples"][0] == "'Anna is great': pos → 'John is great': neg"
    assert (more["cases"], more["failures"]) == (2, 0)
    rate = names["failure_rate"]
    assert rate["value"] == 0.75 and 0.25 < rate["low"] < rate["value"] < rate["high"] <= 1


def test_directions():
    make = lambda expect, **more: behavioural.BehaviourTest(
        "t", "direction", ("a",), expect, change=("b",), label="pos", **more
    )
    lines = lambda *p: [{"prediction": "pos", "probabilities": {"pos": x}} for x in p]
    fails = lambda expect, before, after, **more: behavioural._fails(
        make(expect, **more), lines(before, after)
    )
    assert not fails("higher", 0.5, 0.6) and fails("higher", 0.5, 0.5)
    assert fails("higher", 0.5, 0.6, tolerance=0.2) and not fails(
        "not_higher", 0.5, 0.6, tolerance=0.2
    )
    assert not fails("lower", 0.5, 0.4) and fails("not_lower", 0.5, 0.4)


def test_text_that_cannot_be_read_is_a_failure():
    test = behavioural.BehaviourTest("t", "minimum", ("a",), "pos")
    assert behavioural._fails(test, [{"prediction": None, "dropped": "empty"}])


def broken(**changes):
    test = {**FILE["tests"][0], **changes}
    return {"slots": {"good": ["great", "fine"]}, "tests": [{k: v for k, v in test.items() if v}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "tests.yaml"),
        ({"test": []}, "test: unknown; there are slots and tests"),
        ({"tests": []}, "one at least"),
        ({"slots": {"a": "x"}, "tests": FILE["tests"]}, "slots: a: expected"),
        ({"slots": {"a": [True]}, "tests": FILE["tests"]}, "quote a"),
        ({"slots": {**FILE["slots"], "idle": ["x"]}, "tests": FILE["tests"]}, "no test has {idle}"),
        (
            {**FILE, "tests": [FILE["tests"][0], {**FILE["tests"][0]}]},
            "two tests are called 'praise'",
        ),
        (broken(kind="maximum"), "'maximum' is none of minimum"),
        (broken(expect=None), "expect: is missing; kind=minimum needs it"),
        (broken(vary=["good"]), "vary: unknown"),
        (broken(templates="it is {bad}"), r"no slot \{bad\}; there are good"),
        (broken(templates="it is {good"), "expected '}'"),
        (broken(templates="it is {good!r}"), "a slot is a name alone"),
        (broken(templates=[3]), "expected texts"),
        (broken(kind="invariance", expect=None, vary="goods"), "no slot of two values"),
        (
            broken(kind="direction", expect="up", change="very {good}", label="pos"),
            "'up' is none of higher",
        ),
        (
            broken(kind="direction", expect="lower", change=["{good}", "x"], label="pos"),
            "2 templates for 1",
        ),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, content)


def test_too_many_cases(tmp_path):
    slots = {name: [str(i) for i in range(20)] for name in "abc"}
    content = {"slots": slots, "tests": [{**FILE["tests"][0], "templates": "{a} {b} {c}"}]}
    with pytest.raises(ConfigError, match="8,000 cases, more than 5,000"):
        read(tmp_path, content)


def test_labels_and_tasks_that_do_not_fit(tmp_path):
    tests = read(tmp_path, broken(expect="positive"))
    with pytest.raises(ConfigError, match="no label 'positive'; the model has neg, pos"):
        behavioural.run(tests, Fake(), 0.95)
    with pytest.raises(ConfigError, match="whole texts"):
        behavioural.run(tests, Fake(of_words=True), 0.95)
