"""Every number that a run of any task reports has bounds, or says why it has none."""

from importlib.util import find_spec

import pytest

from jaxsft.rundir import read_json
from jaxsft.tasks.specs import SPECS
from tests import tiny

WORDS = [f"{first}{second}n" for first in "bdfgk" for second in "aeiou"]
CLASS = [{"label": "ab"[i % 2]} for i in range(len(WORDS))]
TEXTS = [{"text": f"the {w} runs {'far ' * (i % 4)}"} for i, w in enumerate(WORDS)]
PAIRS = [{"text": w, "text_pair": f"a {w}"} for w in WORDS]
TAGS = [{"tokens": [w, "runs"], "tags": ["B-X", "O"]} for w in WORDS]
TREES = [{"form": [w, "runs"], "head": [2, 0], "deprel": ["nsubj", "root"]} for w in WORDS]
# one layer, one step: numbers have bounds whatever the model has learnt
SMALL = ["model.layers=1", "train.duration=1steps"]
SMALL += [one for one in tiny.FAST if not one.startswith(("model.layers", "train.", "evaluation."))]
TWO = ["model=encoder_decoder", "model.decoder_layers=1"]
SPAN = {"context": "the red cat saw a dog", "answers": {"text": ["red cat"], "answer_start": [4]}}


def with_label(rows):
    return [one | label for one, label in zip(rows, CLASS, strict=True)]


RUNS = {
    "chat": (
        [{"prompt": f"say {w}", "completion": w, "format": '{"type": "object"}'} for w in WORDS],
        [
            "loss.z_loss=0.01",
            "data.columns.schema=format",
            *(["evaluation.metrics=[json_schema]"] if find_spec("jsonschema") else []),
        ],
    ),
    "lm": (TEXTS, []),
    "mlm": (
        TEXTS,
        ["model=encoder", "tokenizer.added=['<|mask|>']", "task.mask_token='<|mask|>'"],
    ),
    "classify": (with_label(TEXTS), ["task.out_of_scope=b"]),
    "multilabel": (
        [one | {"labels": ["x", "y"][: i % 3]} for i, one in enumerate(TEXTS)],
        [],
    ),
    "regress": (
        [one | {"joy": i % 5, "fear": i * 7 % 11} for i, one in enumerate(TEXTS)],
        ["data.columns.targets=[joy,fear]", "evaluation.metrics=[kendall,number_errors]"],
    ),
    "tag": (TAGS, []),
    "joint": (with_label(TAGS), []),
    "parse": (TREES, []),
    "span_corruption": (
        TEXTS,
        [*TWO, "tokenizer.added=['<extra_id_0>','<extra_id_1>']"],
    ),
    "seq2seq": ([{"source": w, "target": f"a {w}"} for w in WORDS], ["task.scores=[exact_match]"]),
    "pair": (with_label(PAIRS), []),
    "pair of scores": (
        [one | {"score": i / 4} for i, one in enumerate(PAIRS)],
        ["task.loss=mse", "data.columns.score=score"],
    ),
    "pair of nothing": (PAIRS, ["task.loss=contrastive", "task.encoder=bi"]),
    "span": (
        [{"question": f"what is {w}"} | SPAN for w in WORDS],
        ["evaluation.metrics=[span_schemas]"],
    ),
}


def test_every_task_is_here():
    assert {name.partition(" ")[0] for name in RUNS} == set(SPECS.own)


@pytest.mark.parametrize("name", RUNS)
def test_every_number_has_bounds_or_says_why_not(name, tmp_path):
    rows, given = RUNS[name]
    data = tiny.write_lines(tmp_path / "rows.jsonl", rows)
    tiny.train(
        f"task={name.partition(' ')[0]}",
        *given,
        *SMALL,
        "evaluation.generate_rows=4",
        "evaluation.replicates=50",
        "evaluation.level=0.8",
        "generate.allow_cut=true",
        f"data.train={data}",
        f"data.test={data}",
        f"run_dir={tmp_path / 'run'}",
    )
    numbers = read_json(tmp_path / "run" / "result.json")
    intervals = read_json(tmp_path / "run" / "intervals.json")
    results = {name: value for name, value in numbers.items() if name.startswith("test/")}
    assert set(results) == set(intervals) and "test/loss" in results
    for number, entry in intervals.items():
        assert entry["value"] == pytest.approx(results[number], rel=1e-6, nan_ok=True), number
        if entry["low"] is None:
            assert entry["method"] == "count" or entry["reason"], number
        else:
            assert entry["low"] <= entry["high"], number
    assert (intervals["test/loss"]["low"] is None) == (name == "pair of nothing")
    if name == "regress":
        of_targets = ("mse_joy", "pearson_fear", "kendall_tau_b_joy", "max_error_fear")
        assert all(intervals[f"test/{number}"]["low"] is not None for number in of_targets)
