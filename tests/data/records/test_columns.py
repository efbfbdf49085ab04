"""What `Kind.reads` says of each kind is what its parser reads: no field more, and none less."""

import dataclasses

import pytest

from jaxsft.check import check
from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row
from jaxsft.data.records import columns_read
from jaxsft.errors import ConfigError
from jaxsft.tasks.specs import SPECS
from jaxsft.training import setup
from tests import tiny

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARED = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
SPANS = [{"start": 0, "end": 1, "label": "X"}]
# Per kind: rows, each with the columns that are named for it.
SAMPLES = {
    "chat": [
        ({"m": TURNS, "s": "be kind", "t": []}, {"messages": "m", "system": "s", "tools": "t"}),
        ({"c": SHARED}, {"messages": "c", "form": "sharegpt"}),
        ({"p": "q", "c": "a"}, {"prompt": "p", "completion": "c"}),
        (
            {"i": "q", "more": "x", "o": "a", "h": []},
            {"form": "alpaca", "prompt": "i", "input": "more", "completion": "o", "history": "h"},
        ),
    ],
    "lm": [({"t": "a"}, {"text": "t"})],
    "mlm": [({"t": "a"}, {"text": "t"})],
    "span_corruption": [({"t": "a"}, {"text": "t"})],
    "classify": [
        (
            {"t": "a", "u": "b", "l": "x"},
            {"text": "t", "text_pair": "u", "label": "l", "no_label": "-"},
        ),
        ({"text": "a", "label": "x", "n": None}, {"features": ["n"], "missing": "mask"}),
    ],
    "multilabel": [
        (
            {"t": "a", "u": "b", "l": "x|y"},
            {"text": "t", "text_pair": "u", "label": "l", "separator": "|"},
        ),
        ({"text": "a", "x": 1}, {"labels": ["x"]}),
        ({"text": "a", "labels": None}, {"allow": ["absent"]}),
        ({"text": "a", "labels": ["x"], "n": None}, {"features": ["n"], "missing": "mask"}),
    ],
    "regress": [
        ({"t": "a", "u": "b", "l": 1}, {"text": "t", "text_pair": "u", "label": "l"}),
        (
            {"text": "a", "x": None, "y": 1},
            {"targets": ["x", "y"], "missing": "mask", "features": ["y"]},
        ),
    ],
    "tag": [
        ({"w": ["a"], "g": ["O"]}, {"tokens": "w", "tags": "g"}),
        ({"t": "a", "s": SPANS}, {"text": "t", "spans": "s"}),
    ],
    "joint": [
        (
            {"w": ["a"], "g": ["O"], "l": "x"},
            {"tokens": "w", "tags": "g", "label": "l", "no_label": "-"},
        ),
        ({"t": "a", "s": SPANS, "intent": "x"}, {"text": "t", "spans": "s"}),
    ],
    "parse": [
        ({"w": ["a"], "h": [0], "d": ["root"]}, {"tokens": "w", "heads": "h", "deprels": "d"})
    ],
    "seq2seq": [
        ({"s": "a", "t": "b"}, {"source": "s", "target": "t"}),
        ({"s": "a", "r": ["b"]}, {"source": "s", "references": "r"}),
    ],
    "span": [
        (
            {"q": "a", "c": "b", "s": [{"text": "b", "start": 0}]},
            {"text": "q", "text_pair": "c", "answers": "s"},
        )
    ],
    "pair": [
        ({"t": "a", "u": "b", "s": 1}, {"text": "t", "text_pair": "u", "score": "s"}),
        ({"text": "a", "text_pair": "b", "l": "x"}, {"label": "l"}),
    ],
}
# Read only where another option or value is met: a class file where one is given, a group and the
# kind of a feature by the task.
ELSEWHERE = {"group_references", "categories"}


class Noted:
    """Columns that note which of their fields are read."""

    def __init__(self, columns, seen):
        self._columns, self._seen = columns, seen

    def __getattr__(self, name):
        self._seen.add(name)
        return getattr(self._columns, name)


@pytest.mark.parametrize("name", SPECS)
def test_what_is_declared_is_what_is_read(name, monkeypatch):
    kind, seen = SPECS[name].records, set()
    # the inferred columns stay those that note
    monkeypatch.setattr(dataclasses, "replace", lambda value, **_: value)
    for fields, named in SAMPLES[name]:
        columns = Noted(Columns(**named), seen)
        kind.infer_columns(Row(fields, "a", 1), columns)
        kind.inputs(columns), kind.outputs(columns)
        kind.record(Row(fields, "a", 1), columns)
    declared = set(columns_read(kind))
    assert seen - {"weight"} <= declared
    assert declared - seen <= ELSEWHERE | {"weight"}
    assert declared <= {field.name for field in dataclasses.fields(Columns)}


def test_a_column_that_the_task_never_reads_is_an_error(tmp_path):
    data = tiny.write_lines(
        tmp_path / "a.jsonl", [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(8)]
    )
    made = lambda **columns: tiny.config(
        tmp_path,
        tmp_path / "run",
        "classify",
        data={"train": str(data), "columns": Columns(**columns)},
    )
    assert setup.resolve(made(label="label")).data.columns.label == "label"
    for action in (setup.resolve, check):
        with pytest.raises(
            ConfigError,
            match=(
                r"data\.columns\.spans: task=classify never reads it; it reads categories, cluster,"
                r" features, label, "
            ),
        ):
            action(made(spans="s"))
