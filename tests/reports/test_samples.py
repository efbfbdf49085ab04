"""What a report shows of a line of predictions: something that was given and something that was
said of it, for every task.
"""

import jax
import numpy as np
import pytest

from jaxsft import tasks
from jaxsft.config import metric_names
from jaxsft.data.records import Question
from jaxsft.evaluation import passes
from jaxsft.metrics import by_name
from jaxsft.reports import markdown_report, samples, scores
from jaxsft.reports.samples import Word, sample
from tests.conftest import TASKS, bench

QUESTIONS = [Question("Who?", "It was Ann, then Bo.", ("Ann",), (7,))] * 3


def predicted(name: str) -> list[dict]:
    """The lines of predictions of a task, from a model whose outputs are all one: nothing is
    compiled.
    """
    made = bench(name, 3, **({"records": (QUESTIONS, list("abc"))} if name == "span" else {}))
    shapes = lambda batch: jax.eval_shape(made.program.evaluate, *made.apart, batch, made.hyper)
    ones = lambda batch: jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes(batch))
    _, columns = passes.run_pass(ones, made.batches, made.parts.task.decoded)
    answers = dict.fromkeys(range(3), "an answer") if made.parts.task.generates else None
    return list(made.parts.task.predictions(made.batches.split, columns, answers))


@pytest.mark.parametrize("name", TASKS)
def test_every_task_shows_what_was_given_and_what_was_said(name):
    lines = predicted(name)
    assert lines
    for line in lines:
        shown = sample(line)
        assert shown.words or shown.texts
        if shown.words:
            assert all(word.gold is not None and word.answer is not None for word in shown.words)
        else:
            assert shown.nll is not None or shown.answer
        assert not shown.gold or (shown.answer or shown.words)
        assert (
            "["
            not in markdown_report.samples_table(
                [samples.readable(line)], ["words", "prediction"]
            ).splitlines()[2]
        )


def test_every_task_has_its_lines_here():
    # these two write the lines of lm
    assert set(TASKS) | {"mlm", "span_corruption"} == set(tasks.NAMES)


def test_words_carry_their_tags_and_arcs():
    line = {
        "tokens": ["Ann", "saw", "Bo"],
        "tags": ["B-PER", "O", "B-PER"],
        "prediction": ["B-PER", "O", "O"],
        "correct": False,
    }
    assert sample(line).words == [
        Word("Ann", "B-PER", "B-PER"),
        Word("saw", "", ""),
        Word("Bo", "B-PER", ""),
    ]
    assert [word.state for word in sample(line).words] == ["right", "", "wrong"]
    assert samples.readable(line) == {
        "row": None,
        "words": "Ann/B-PER saw Bo/B-PER",
        "prediction": "Ann/B-PER saw Bo",
        "correct": False,
    }
    tree = {
        "tokens": ["Ann", "saw"],
        "heads": [2, 0],
        "deprels": ["nsubj", "root"],
        "prediction": {"head": [0, 1], "deprel": ["root", "obj"]},
    }
    assert [(word.gold, word.answer) for word in sample(tree).words] == [
        ("nsubj of saw", "root"),
        ("root", "obj of Ann"),
    ]
    long = {"tokens": ["a"] * 200, "tags": ["X"] * 200, "prediction": ["X"] * 200}
    assert (
        len(sample(long).words) == samples.WORDS and sample(long).more_words == 200 - samples.WORDS
    )
    # of jaxsft predict: no gold
    assert [word.state for word in sample({"tokens": ["a"], "prediction": ["X"]}).words] == [""]


def test_behind_a_cell_of_tags_are_words_in_their_text():
    line = {
        "row": 4,
        "tokens": list("abcdefghij"),
        "tags": ["O"] * 9 + ["X"],
        "prediction": ["O"] * 10,
    }
    assert list(samples.by_class([line, {"label": "x"}]))[9:] == [
        {"row": 4, "text": "d e f g h i «j»", "label": "X", "prediction": "O"}, {"label": "x"},
    ]  # fmt: skip


# --- numbers
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", tasks.NAMES)
def test_the_metric_that_chose_the_checkpoint_comes_first(name):
    metric = tasks.get(name).metric or "f1_micro"  # of tags, which the data decide
    assert metric in metric_names.ORDER
    spec = tasks.get(name).spec
    names = ("loss", *by_name.numbers_of([*spec.measures, *spec.answer_measures]))
    assert metric_names.ordered(names, metric)[0] == metric and sorted(
        metric_names.ordered(names, metric)
    ) == sorted(names)
    assert scores.chosen({"evaluation": {"metric": f"validation/{metric}"}}) == metric
    assert scores.chosen({"evaluation": None}) == scores.chosen({}) == ""


def test_numbers_that_are_the_accuracy_again_are_told_once():
    single = {
        (split, m): 0.5
        for split in ("test", "validation")
        for m in ("accuracy", "f1_micro", "recall_weighted", "f1_macro")
    }
    assert scores.table(single, "accuracy") == (
        ["test", "validation"],
        ["accuracy", "f1_macro"],
        ["f1_micro", "recall_weighted"],
    )
    # another thing under this name
    assert (
        metric_names.repeated(single | {("test", "f1_micro"): 0.4}, ["accuracy", "f1_micro"]) == []
    )
    # of chunks of words, equal by chance
    assert metric_names.repeated(single, ["accuracy", "f1_micro", "words"]) == []
    nan = {("test", "accuracy"): "NaN", ("test", "f1_micro"): "NaN"}
    assert metric_names.repeated(nan, ["accuracy", "f1_micro"]) == ["f1_micro"]


def test_the_table_of_a_finished_run():
    numbers = {
        "train/steps": 20,
        "train/best_step": 15,
        "test/loss": 1.25,
        "test/f1_micro": 0.5,
        "validation/f1_micro": 1 / 3,
        "test/words": 12345,
    }
    assert scores.lines(numbers, "f1_micro") == [
        "                test  validation",
        "f1_micro *       0.5      0.3333",
        "loss            1.25",
        "words         12,345",
        "steps 20, best step 15 (* chose the checkpoint)",
    ]
    again = {f"{split}/{m}": 1.0 for split in ("test", "train") for m in ("accuracy", "f1_micro")}
    assert (
        scores.lines(again, "accuracy")[-1]
        == "(* chose the checkpoint; f1_micro: equal to accuracy)"
    )
