"""Labels over the splits, rows that contradict or repeat each other, targets."""

import pytest

from tests.check.look import found, lines, look

COLOURS = ["red", "green", "blue", "pink", "teal", "gold", "grey", "plum", "lime", "rust"]
TRAIN = [
    {"text": f"{c} {n} in the long grass", "label": "ab"[i % 2]}
    for i, c in enumerate(COLOURS)
    for n in ("apples", "stones")
]
HELD = [
    {"text": f"nobody painted this {n} {c}", "label": "ab"[i % 2]}
    for i, c in enumerate(COLOURS)
    for n in ("house", "boat")
]


# --- labels
# --------------------------------------------------------------------------------------------------
def test_a_class_of_an_evaluation_split_that_training_lacks_is_an_error(tmp_path):  # guards D12
    held = [
        *HELD,
        {"text": "one more thing", "label": "c"},
        {"text": "and another one", "label": "d"},
    ]
    result = look("classify", tmp_path, {"train": TRAIN, "validation": HELD, "test": held})
    unseen = found(result, "unseen_label")
    assert (
        unseen.severity == "error"
        and unseen.split == "test"
        and lines(unseen) == [21, 22]
        and "'c', 'd'" in unseen.message
    )
    assert (
        look(
            "classify",
            tmp_path,
            {"train": TRAIN, "test": held},
            task={"labels": ["a", "b", "c", "d"]},
        ).errors
        == 0
    )


def test_declared_labels_that_training_breaks(tmp_path):
    result = look(
        "classify",
        tmp_path,
        {"train": [*TRAIN, {"text": "x y z", "label": "q"}]},
        task={"labels": ["a", "b"]},
    )
    assert found(result, "unseen_label", "train").count == 1 and result.errors == 1


def test_a_class_that_an_evaluation_split_lacks(tmp_path):
    result = look(
        "classify", tmp_path, {"train": TRAIN, "test": [row for row in HELD if row["label"] == "a"]}
    )
    missing = found(result, "class_missing")
    assert missing.severity == "warning" and missing.count == 1 and "'b'" in missing.message


@pytest.mark.parametrize(
    "many, severity, id", [(9, "info", "classes"), (10, "warning", "label_balance")]
)
def test_imbalance(tmp_path, many, severity, id):
    rows = [{"text": f"{TRAIN[i % 20]['text']} {i}", "label": "most"} for i in range(many)] + [
        {"text": "something else", "label": "least"}
    ]
    balance = found(look("classify", tmp_path, {"train": rows}), id)
    assert (
        balance.severity == severity
        and f"'most' ({many}) is {many} times as frequent as 'least' (1)" in balance.message
    )


def test_classes_that_are_measurements(tmp_path):
    rows = [
        {"text": f"{row['text']} {i}", "label": f"{i % 4}.{5 * (i % 2)}"}
        for i, row in enumerate(TRAIN)
    ]
    # '1.5' and '3.5' alone
    assert found(look("classify", tmp_path, {"train": rows}), "number_labels") is None
    rows = [{**row, "label": f"{i % 4}.5"} for i, row in enumerate(rows)]
    told = found(look("classify", tmp_path, {"train": rows}), "number_labels")
    assert told.severity == "warning" and told.count == 4 and told.repair == "task=regress"


def test_one_class_and_labels_that_differ_in_case(tmp_path):
    assert (
        found(
            look("classify", tmp_path, {"train": [row for row in TRAIN if row["label"] == "a"]}),
            "one_class",
        ).severity
        == "error"
    )
    spelled = [
        {**row, "label": row["label"].upper() if i == 4 else row["label"]}
        for i, row in enumerate(TRAIN)
    ]
    assert (
        "A / a" in found(look("classify", tmp_path, {"train": spelled}), "label_spelling").message
    )


def test_one_text_with_different_labels(tmp_path):
    rows = [*TRAIN, {"text": "RED  apples in the long grass", "label": "b"}]
    result = look("classify", tmp_path, {"train": rows})
    assert lines(found(result, "label_conflict")) == [1, 21] and lines(
        found(result, "duplicates")
    ) == [21]


# --- repeated rows
# --------------------------------------------------------------------------------------------------
def test_exact_leaks_are_found_after_normalisation(tmp_path):
    held = [*HELD, {"text": "Red   APPLES in the long grass", "label": "a"}, TRAIN[7]]
    result = look("classify", tmp_path, {"train": TRAIN, "validation": HELD, "test": held})
    (to_train,) = [
        f for f in result.findings if f.id == "leak_exact" and "of a row of train" in f.message
    ]
    (to_validation,) = [
        f for f in result.findings if f.id == "leak_exact" and "of a row of validation" in f.message
    ]
    assert to_train.rows == (
        f"{tmp_path}/test.jsonl:21 = {tmp_path}/train.jsonl:1",
        f"{tmp_path}/test.jsonl:22 = {tmp_path}/train.jsonl:8",
    )
    assert (
        to_validation.count == 20
        and result.numbers["test"]["in_train"] == 2
        and result.numbers["test"]["in_validation"] == 20
    )


def test_near_leaks(tmp_path):
    long = (
        "the quick brown fox jumps over the lazy dog while the sun goes down behind the old mill"
        " and nobody is there to see it happen"
    )
    train = [*TRAIN, {"text": long, "label": "a"}]
    held = [
        *HELD,
        {"text": long.replace("happen", "again"), "label": "a"},
        {"text": "the quick brown fox is asleep", "label": "b"},
    ]
    result = look("classify", tmp_path, {"train": train, "test": held})
    near = found(result, "leak_near")
    assert (
        near.rows == (f"{tmp_path}/test.jsonl:21 ~ {tmp_path}/train.jsonl:21",)
        and near.severity == "warning"
    )
    assert (
        found(
            look("classify", tmp_path, {"train": train, "test": held}, check={"near": 0.0}),
            "leak_near",
        )
        is None
    )


def test_leaks_of_chats_are_told_by_what_is_asked(tmp_path):
    ask = lambda i, answer: {"prompt": TRAIN[i]["text"], "completion": answer}
    result = look(
        "chat",
        tmp_path,
        {"train": [ask(i, "yes") for i in range(10)], "test": [ask(3, "no"), ask(15, "no")]},
    )
    assert found(result, "leak_exact").count == 1


# --- targets
# --------------------------------------------------------------------------------------------------
def test_targets(tmp_path):
    rows = [
        {"text": f"{row['text']}", "V": i, "A": 2.5, "D": None if i == 3 else i / 2}
        for i, row in enumerate(TRAIN)
    ]
    columns = {"targets": ("V", "A", "D"), "missing": "mask"}
    result = look("regress", tmp_path, {"train": rows}, columns=columns)
    v, a, d = result.numbers["train"]["targets"]
    assert (v["min"], v["max"], v["mean"], d["missing"]) == (0, 19, 9.5, 1) and a["std"] == 0
    # training refuses it too
    assert "'A'" in found(result, "target_constant").message and result.errors == 2
    strict = look("regress", tmp_path, {"train": rows}, columns={"targets": ("V", "D")})
    assert lines(found(strict, "no_record")) == [4]


def test_a_split_that_lacks_labels_can_be_learnt_or_dropped(tmp_path):
    splits = {
        "train": TRAIN,
        "test": [{"text": "new", "label": "c"}, {"text": "old", "label": "a"}],
    }
    learnt = look("classify", tmp_path, splits, data={"unseen_labels": "learn"})
    assert learnt.errors == 0 and found(learnt, "unseen_label").severity == "info"
    dropped = look("classify", tmp_path, splits, data={"unseen_labels": "drop"})
    assert (
        dropped.errors == 0
        and lines(found(dropped, "unseen_label")) == [1]
        and dropped.numbers["test"]["rows"]["records"] == 1
    )
    assert dropped.numbers["test"]["ledger"]["rows"]["dropped"] == {"unseen_label": 1}


def test_relations_that_train_lacks(tmp_path):
    row = lambda word, relation: {
        "form": [word, "up"],
        "head": [0, 1],
        "deprel": ["root", relation],
    }
    splits = {
        "train": [row(f"go{i}", "adv") for i in range(8)],
        "test": [row("run", "obj"), row("sit", "adv")],
    }
    assert "'obj'" in found(look("parse", tmp_path, splits), "unseen_label").message
    for choice in ("learn", "drop"):
        assert look("parse", tmp_path, splits, data={"unseen_labels": choice}).errors == 0


def test_an_invisible_character_is_no_other_label(tmp_path):
    rows = [
        {"text": f"t{i}", "label": label}
        for i, label in enumerate(
            ["tea", "tea\u200b", "tea", "\ufefftea", "cof\u00adfee", "coffee"] * 3
        )
    ]
    spelled = found(look("classify", tmp_path, {"train": rows}), "label_spelling")
    assert spelled.count == 2 and r"tea\u200b" in spelled.message


def test_a_label_of_every_row_and_labels_like_none(tmp_path):
    rows = [{"text": f"t{i}", "labels": ["all", "xy"[i % 2]]} for i in range(8)]
    assert (
        "'all'" in found(look("multilabel", tmp_path, {"train": rows}), "label_everywhere").message
    )
    rows = [{"text": f"t{i}", "label": ["none", "some"][i % 2]} for i in range(8)]
    assert (
        found(look("classify", tmp_path, {"train": rows}), "label_like_none").repair
        == "data.columns.no_label=none"
    )


def test_numbers_as_tags_get_their_names(tmp_path):
    rows = [{"tokens": ["go", f"Mont{i}", "up"], "tags": [0, 1, 2]} for i in range(6)]
    numbers = look("tag", tmp_path, {"train": rows})
    assert (
        "never of chunks" in found(numbers, "number_tags").message
        and found(numbers, "scheme") is None
    )
    (tmp_path / "names.txt").write_text("O\nB-LOC\nI-LOC\n", encoding="utf-8")
    named = look(
        "tag", tmp_path, {"train": rows}, columns={"label_names": str(tmp_path / "names.txt")}
    )
    assert (
        found(named, "number_tags") is None and "iob2: 6 chunks" in found(named, "scheme").message
    )
    minus = [{"tokens": ["go", "up"], "tags": [i % 2, -100]} for i in range(6)]
    assert found(look("tag", tmp_path, {"train": minus}), "tokens").repair.startswith(
        "task.untagged=-100"
    )


@pytest.mark.parametrize("balance", ["equal", "near"])
def test_what_is_equally_frequent_is_told_so(tmp_path, balance):
    rows = [
        {"text": f"t{i}", "label": "ab"[i % 2]} for i in range(100 if balance == "equal" else 101)
    ]
    message = found(look("classify", tmp_path, {"train": rows}), "classes").message
    assert (
        "equally frequent (50 each)" in message
        if balance == "equal"
        else "nearly equally frequent (50 to 51)" in message
    )


def test_the_repair_of_a_pair_is_the_loss_that_fits(tmp_path):
    rows = [{"text": f"a {i}", "text_pair": f"b {i}", "score": i / 9} for i in range(9)]
    repair = found(
        look("pair", tmp_path, {"train": rows}, columns={"score": "score"}), "tokens"
    ).repair
    assert repair.startswith("task.loss=mse")
