"""A check tells of every row what training would refuse, and of a good set that it is good."""

import ast
import dataclasses
import json
import re
from pathlib import Path

import pytest

import jaxsft
from jaxsft import tasks
from jaxsft.check import summary
from jaxsft.config import compose, schema
from jaxsft.data import records, verdicts
from jaxsft.data.splits import read_splits
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import stages
from jaxsft.tasks.specs import SPECS
from tests import tiny
from tests.check.look import config, found, lines, look
from tests.realdata import real

WORDS = [f"{first}{second}n" for first in "bdfgk" for second in "aeiou"]
GOOD = [
    {"text": f"the {a} meets the {b} near a river", "label": "ab"[i % 2]}
    for i, (a, b) in enumerate(zip(WORDS, WORDS[7:], strict=False))
]
HELD = [
    {"text": f"no {a} has ever seen any {b}", "label": "ab"[i % 2]}
    for i, (a, b) in enumerate(zip(WORDS, WORDS[3:], strict=False))
]


def ids(result, severity):
    return {finding.id for finding in result.findings if finding.severity == severity}


def test_a_good_set_has_no_error_and_no_warning(tmp_path):
    result = look("classify", tmp_path, {"train": GOOD, "test": HELD})
    assert ids(result, "error") == ids(result, "warning") == set() and result.errors == 0
    assert result.numbers["train"]["rows"] == {"read": len(GOOD), "records": len(GOOD)}
    assert result.numbers["test"]["labels"] == {"a": 11, "b": 11}


def test_all_bad_rows_are_told_not_the_first(tmp_path):  # guards D9
    rows = [
        *GOOD[:3],
        {"text": "x"},
        {"text": 3, "label": "a"},
        *GOOD[3:],
        {"text": "y", "label": None},
    ]
    text = "\n".join(map(json.dumps, rows)) + '\n{"text": \n'
    result = look("classify", tmp_path, {"train": text})
    assert (
        lines(found(result, "no_record")) == [4, 5, 21]
        and found(result, "no_record").severity == "error"
    )
    assert (
        lines(found(result, "unreadable")) == [22]
        and "on_bad_row=quarantine" in found(result, "unreadable").repair
    )
    # 4 of 22 rows are more than data.max_dropped allows, whoever puts them aside
    assert found(result, "too_many_dropped").severity == "error"
    allowed = look(
        "classify", tmp_path, {"train": text}, data={"on_bad_row": "quarantine", "max_dropped": 0.2}
    )
    assert found(allowed, "no_record").severity == "warning" and allowed.errors == 0


def test_what_a_check_calls_an_error_training_refuses(tmp_path):
    """For every kind of broken row: the check has an error if and only if reading for training
    raises.
    """
    sets = {
        "good": GOOD,
        "no label": [*GOOD, {"text": "x"}],
        "empty label": [*GOOD, {"text": "x", "label": ""}],
        "text is a number": [*GOOD, {"text": 1, "label": "a"}],
    }
    for name, rows in sets.items():
        made = config("classify", tmp_path, {"train": rows})
        try:
            read_splits(made, tasks.get("classify"))
            refused = False
        except DataError:
            refused = True
        assert (look("classify", tmp_path, {"train": rows}).errors > 0) == refused, name


def test_a_missing_file_is_a_finding_and_the_other_splits_are_checked(tmp_path):
    result = look("classify", tmp_path, {"train": GOOD, "test": tmp_path / "none.jsonl"})
    assert found(result, "unreadable", "test").severity == "error" and "train" in result.numbers


def test_no_data_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="no training data"):
        look("classify", tmp_path, {})


def test_a_declared_mark_is_no_error(tmp_path):
    rows = [*GOOD, {"text": "neither", "label": "-"}]
    marked = look("classify", tmp_path, {"train": rows}, columns={"no_label": "-"})
    assert found(marked, "no_label").severity == "info" and marked.errors == 0
    # not declared: a class like any other
    assert found(look("classify", tmp_path, {"train": rows}), "label_once").count == 1


def test_an_accepted_error_is_no_error(tmp_path):
    splits = {"train": GOOD, "test": [*HELD, GOOD[0]]}
    assert look("classify", tmp_path, splits).errors == 1
    accepted = look("classify", tmp_path, splits, check={"accept": ["leak_exact"]})
    assert accepted.errors == 0 and found(accepted, "leak_exact").accepted
    idle = look("classify", tmp_path, {"train": GOOD}, check={"accept": ["leak_exakt"]})
    assert "leak_exakt" in found(idle, "accept_unused").message


@pytest.mark.parametrize("places", [0, 1, 3])
def test_a_finding_names_so_many_rows(tmp_path, places):
    result = look(
        "classify", tmp_path, {"train": [*GOOD, *[{"text": "x"}] * 5]}, check={"places": places}
    )
    assert len(found(result, "no_record").rows) == places and found(result, "no_record").count == 5


# --- records of all kinds
# --------------------------------------------------------------------------------------------------
KINDS = {
    "multilabel": (
        [{"text": f"t{i} {w}", "labels": ["x", "y"][: i % 3]} for i, w in enumerate(WORDS)],
        {},
    ),
    "regress": (
        [{"text": f"t{i} {w}", "V": i, "A": "0.5"} for i, w in enumerate(WORDS)],
        {"targets": ("V", "A")},
    ),
    "tag": ([{"tokens": [w, "runs"], "tags": ["B-X", "O"]} for w in WORDS], {}),
    "parse": (
        [{"form": [w, "runs"], "head": [2, 0], "deprel": ["nsubj", "root"]} for w in WORDS],
        {},
    ),
    "seq2seq": ([{"source": w, "target": f"a {w}"} for w in WORDS], {}),
    "pair": (
        [{"text": w, "text_pair": f"a {w}", "score": i / 4} for i, w in enumerate(WORDS)],
        {"score": "score"},
    ),
}


@pytest.mark.parametrize("task", KINDS)
def test_records_of_every_kind_are_checked(tmp_path, task):
    rows, columns = KINDS[task]
    options = {
        "task": {"pair": {"loss": "mse"}, "seq2seq": {"scores": ("exact_match",)}}.get(task, {})
    }
    result = look(task, tmp_path, {"train": rows}, columns=columns, **options)
    # training refuses what cannot be learnt
    errors = {"target_constant", "tokens"} if task == "regress" else set()
    assert ids(result, "error") == errors
    if errors:
        rows = [{**row, "A": row["V"] / 2} for row in rows]
        result = look(task, tmp_path, {"train": rows}, columns=columns, **options)
        assert ids(result, "error") == set()
    assert result.numbers["train"]["lengths"]["min"] > 0
    broken = look(task, tmp_path, {"train": [*rows, {"text": 3}]}, columns=columns, **options)
    assert found(broken, "no_record").count == 1


def test_every_task_of_the_config_has_a_kind_of_record():
    assert set(schema.GROUPS["task"]) == set(SPECS)


def test_sources_of_an_encoder_have_rows_of_their_own(tmp_path):
    rows = [{"source": f"{w} {'long ' * (i // 4)}", "target": w} for i, w in enumerate(WORDS)]
    fits = look("seq2seq", tmp_path, {"train": rows}, model={"decoder_layers": 1})
    assert ids(fits, "error") == set() and fits.numbers["train"]["ledger"]["rows"]["kept"] == len(
        rows
    )
    longer = found(
        look(
            "seq2seq",
            tmp_path,
            {"train": rows},
            model={"decoder_layers": 1},
            data={"max_source_length": 8},
        ),
        "too_long",
    )
    assert (
        "8 tokens of a row of sources" in longer.message
        and "data.max_source_length" in longer.repair
    )
    assert longer.count == sum(len(row["source"].encode()) + 1 > 8 for row in rows)


def test_references_of_one_source_are_one_row(tmp_path):
    rows = [{"source": w, "target": f"a {w}"} for w in WORDS[:4]] + [
        {"source": w, "target": f"the {w}"} for w in WORDS[:4]
    ]
    apart = look("seq2seq", tmp_path, {"train": rows})
    grouped = look("seq2seq", tmp_path, {"train": rows}, columns={"group_references": True})
    assert apart.numbers["train"]["rows"] == {"read": 8, "records": 8} and grouped.numbers["train"][
        "rows"
    ] == {"read": 8, "records": 4}
    assert found(apart, "duplicates").count == 4 and found(grouped, "duplicates") is None


def test_schemes_of_tags(tmp_path):
    one = [{"tokens": ["a", "b"], "tags": ["B-X", "I-X"]}] * 2
    other = [{"tokens": ["a", "b", "c"], "tags": ["B-X", "I-X", "E-X"]}] * 2
    assert (
        "train iob2, test iobes"
        in found(look("tag", tmp_path, {"train": one, "test": other}), "schemes_differ").message
    )
    assert (
        found(
            look("tag", tmp_path, {"train": [*one, {"tokens": ["a"], "tags": ["NOUN"]}]}),
            "mixed_tags",
        ).severity
        == "error"
    )
    assert "4 chunks" not in found(look("tag", tmp_path, {"train": one}), "scheme").message
    assert (
        "iob2: 2 chunks in 2 rows" in found(look("tag", tmp_path, {"train": one}), "scheme").message
    )


# --- outputs
# --------------------------------------------------------------------------------------------------
def test_the_command_line(tmp_path):
    tiny.write_lines(tmp_path / "train.jsonl", [*GOOD, {"text": "x"}])
    out = tmp_path / "out"
    code, text, err = tiny.jaxsft(
        "check", "task=classify", f"data.train={tmp_path}/train.jsonl", f"check.output={out}"
    )
    assert (
        (code, err) == (1, "")
        and f"{tmp_path}/train.jsonl:19" in text
        and "refused: 1 error," in text
    )
    content = json.loads((out / "check.json").read_text())
    assert content["counts"]["error"] == 1 and content["findings"][0]["id"] == "no_record"
    page = (out / "check.html").read_text()
    assert (
        "no_record" in page
        and "http" not in page.replace("http-equiv", "")
        and "<script" not in page
    )
    tiny.write_lines(tmp_path / "train.jsonl", GOOD)
    code, text, err = tiny.jaxsft(
        "check", "task=classify", f"data.train={tmp_path}/train.jsonl", "check.json=-"
    )
    assert code == 0 and json.loads(text)["counts"]["error"] == 0
    code, text, err = tiny.jaxsft("check", "task=tag", f"data.train={tmp_path}/none.conll")
    assert code == 1 and "train cannot be read" in text
    code, _, err = tiny.jaxsft("train", "task=tag", f"data.train={tmp_path}/none.conll")
    assert code == 1 and "none.conll" in err
    code, _, err = tiny.jaxsft("check", "task=classify", "data.train=x", "check.near=1")
    assert code == 1 and "check.near=1" in err


def test_from_python(tmp_path):
    tiny.write_lines(tmp_path / "train.jsonl", [*GOOD, {"text": "x"}])
    result = jaxsft.check(
        f"data.train={tmp_path}/train.jsonl", task="classify", check={"places": 1}
    )
    assert result.errors == 1 and lines(found(result, "no_record")) == [len(GOOD) + 1]
    assert jaxsft.check(config("classify", tmp_path, {"train": GOOD})).errors == 0


def test_json_goes_to_a_file_too(tmp_path):
    result = look("classify", tmp_path, {"train": GOOD})
    assert summary.write(result, None, str(tmp_path / "x.json")) == [str(tmp_path / "x.json")]
    assert json.loads((tmp_path / "x.json").read_text()) == json.loads(
        summary.json_text(result.as_dict())
    )


def test_text_of_the_data_cannot_act_on_a_terminal_or_a_page(tmp_path):
    rows = [*GOOD, {"text": "\x1b[2Jgone <script>alert(1)</script>", "label": "a\x1b[0m<b>"}]
    result = look("classify", tmp_path, {"train": rows, "test": HELD}, check={"samples": 50})
    text = summary.text(result, colour=False)
    assert "\x1b" not in text and "gone" in text
    summary.write(result, str(tmp_path / "out"), None)
    page = (tmp_path / "out" / "check.html").read_text()
    assert "<script" not in page and "\x1b" not in page and "&lt;script&gt;" in page


# --- real sets
# --------------------------------------------------------------------------------------------------
def test_banking77(tmp_path):
    train, test = real("banking77/train.csv"), real("banking77/test.csv")
    result = look(
        "classify", tmp_path, {"train": train, "test": test}, columns={"label": "category"}
    )
    assert (
        result.numbers["train"]["rows"]["read"] == 10003
        and len(result.numbers["test"]["labels"]) == 77
    )
    leak = found(result, "leak_exact")
    assert leak.count == result.numbers["test"]["in_train"] == 7 and ids(result, "error") == {
        "leak_exact"
    }


def test_columns_that_nothing_reads_are_named(tmp_path):
    rows = [row | {"id": i, "note": "x"} for i, row in enumerate(GOOD)]
    unread = found(look("classify", tmp_path, {"train": rows}), "unread_columns")
    assert (
        unread.message == "Nothing reads the columns 'id', 'note' of train."
        and unread.severity == "info"
    )
    assert found(look("classify", tmp_path, {"train": GOOD}), "unread_columns") is None


def test_what_annotators_refused_is_told(tmp_path):
    rows = [row | {"answer": "accept"} for row in GOOD]
    rows[1]["answer"], rows[2]["answer"] = "reject", "ignore"
    told = look("classify", tmp_path, {"train": rows})
    assert (
        told.errors == 0
        and lines(found(told, "rejected")) == [2]
        and lines(found(told, "ignored")) == [3]
    )
    assert told.numbers["train"]["ledger"]["rows"]["dropped"] == {"rejected": 1, "ignored": 1}
    valid = [row | {"is_valid": i > 0} for i, row in enumerate(GOOD)]
    doubt = look("classify", tmp_path, {"train": valid})
    assert doubt.errors and "data.keep.is_valid=true" in found(doubt, "verdict").message
    taken = look("classify", tmp_path, {"train": valid}, data={"keep": {"is_valid": True}})
    assert taken.errors == 0 and taken.numbers["train"]["rows"]["records"] == len(GOOD) - 1


def test_a_sample_of_words_shows_their_tags(tmp_path):
    result = look(
        "tag",
        tmp_path,
        {
            "train": [
                {"tokens": ["Ann", "runs"], "tags": ["B-X", "O"]},
                {"tokens": ["a"], "tags": ["O"]},
            ]
        },
    )
    assert "\nAnn/B-X runs/O" in summary.text(result, colour=False)


def test_repairs_name_options_and_stages_that_exist():
    """Every option and stage that a text of the check, of records or of the split names can be
    set."""
    known = set()
    for task in compose.GROUPS["task"].values():
        known |= set(compose.flat(compose.to_dict(schema.Config(task=task()))))
    known |= {
        f"tokenizer.{f.name}"
        for cls in compose.GROUPS["tokenizer"].values()
        for f in dataclasses.fields(cls)
    }
    names = re.compile(
        r"(?<![\w./])(?:data|task|check|model|tokenizer|evaluation|loss)\.[a-z_]+(?:\.[a-z_]+)*(?=[=,;:)\s|]|$)"
    )
    folders = [Path(summary.__file__).parent, Path(records.__file__).parent]
    of_tasks = [
        Path(tasks.__file__).parent / f"{name}.py" for name in ("tag", "pair", "whole_text")
    ]
    files = [
        *(file for folder in folders for file in folder.glob("*.py")),
        Path(verdicts.__file__),
        *of_tasks,
    ]
    told = {name for file in files for text in _strings(file) for name in names.findall(text)}
    free = ("data.keep", "data.options", "task.variables")
    wrong = sorted(
        name
        for name in told
        if name not in known
        and not name.startswith(free)
        and not any(k.startswith(f"{name}.") for k in known)
    )
    assert len(told) > 30 and wrong == ["check.html"]  # a file
    said = {
        name
        for file in files
        for text in _strings(file)
        for name in re.findall(r"the stages? ([a-z_]+)", text)
    }
    assert said and said <= set(stages.STAGES)


def _strings(file):
    """The texts of a module, without its docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docs = {
        id(n.body[0].value)
        for n in ast.walk(tree)
        if isinstance(getattr(n, "body", None), list) and n.body and isinstance(n.body[0], ast.Expr)
    }
    return [
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docs
    ]


def test_bad_rows_are_told_by_kind_and_by_label(tmp_path):
    lines = [
        "text,label",
        *(f"t {i},{'rare' if i % 10 == 0 else 'common'}" for i in range(40)),
        "only one cell",
        "another",
        "a,b,c",
    ]
    content = "\n".join(lines).encode() + b"\nwin \xa3,rare\nwin \xa3 2,rare\n"
    (tmp_path / "a.csv").write_bytes(content)
    told = found(look("classify", tmp_path, {"train": tmp_path / "a.csv"}), "unreadable")
    first, *kinds = told.message.split("\n")
    assert (
        told.count == 5
        and len(kinds) == 3
        and "5 rows of train" in first
        and first.endswith("; by label: rare 2 of 6")
    )
    assert "2 at " in kinds[0] and "a.csv:42 and others: found 1 cells, expected 2" in kinds[0]
    assert (
        "2 at " in kinds[1]
        and "a.csv:45 and others: byte " in kinds[1]
        and "1 at " in kinds[2]
        and "found 3 cells" in kinds[2]
    )
    assert [
        line.strip()
        for line in summary.text(
            look("classify", tmp_path, {"train": tmp_path / "a.csv"}), False
        ).split("\n")
    ][1:4] == kinds


def test_files_that_are_left_out_are_told(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jsonl").write_text("\n".join(map(json.dumps, GOOD)))
    (tmp_path / "set" / "README.md").write_text("# card")
    result = look("classify", tmp_path, {"train": tmp_path / "set"})
    assert (
        "README.md is no data and left out" in found(result, "left_out").message
        and found(result, "left_out").severity == "info"
    )
