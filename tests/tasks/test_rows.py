"""What the pass gives of the windows of a text becomes one prediction of the text."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special

from jaxsft.errors import ConfigError
from jaxsft.tasks import rows
from tests import conftest

# three windows of row 0, one of row 2, two of row 3; row 1 was dropped
SPLIT = SimpleNamespace(arrays={"row": np.array([0, 0, 0, 2, 3, 3])})
LOGITS = np.array(
    [[2, 1, 0], [2, 1, 0], [-9, -9, 5], [0, 3, 0], [1, 0, -1], [-1, 4, 0]], np.float32
)


def test_windows_are_joined_by_hand():
    mean = rows.joined(SPLIT, LOGITS, "mean")
    np.testing.assert_allclose(mean, [[-5 / 3, -7 / 3, 5 / 3], [0, 3, 0], [0, 2, -0.5]], rtol=1e-6)
    most = rows.joined(SPLIT, LOGITS, "max")
    np.testing.assert_array_equal(most, [[2, 1, 5], [0, 3, 0], [1, 4, 0]])
    share = scipy.special.softmax(rows.joined(SPLIT, LOGITS, "vote"), -1)
    np.testing.assert_allclose(
        share[0], [2 / 3, 0, 1 / 3], atol=1e-3
    )  # one sure window is one vote
    np.testing.assert_allclose(share[2], [1 / 2, 1 / 2, 0], atol=1e-3)
    assert share[2, 1] > share[2, 0]  # a tie, told by the mean of the probabilities
    assert [rows.joined(SPLIT, LOGITS, how)[0].argmax() for how in ("mean", "max", "vote")] == [
        2,
        2,
        0,
    ]


@pytest.mark.parametrize("task", ["classify", "multilabel"])
def test_a_task_joins_windows_as_it_is_asked(task):
    records, where = conftest.make_records(task, 4, longest=40)
    data = {"too_long": "window", "max_length": 16}
    for how in ("mean", "max") if task == "multilabel" else ("mean", "max", "vote"):
        b = conftest.bench(task, records=(records, where), task={"windows": how}, data=data)
        kind, split = b.parts.task, b.batches.split
        values = np.random.default_rng(0).normal(size=(split.examples, kind.width)).astype("f")
        assert split.examples > len(rows.kept(split)[0])
        found = kind.row_outputs(split, {"logits": values})["logits"]
        np.testing.assert_array_equal(found, rows.joined(split, values, how))
        lines = list(kind.predictions(split, {"logits": values}, None))
        if task == "classify":
            assert [line["prediction"] for line in lines] == [
                kind.labels[i] for i in found.argmax(-1)
            ]


def test_one_window_needs_no_word_of_how():
    with pytest.raises(ConfigError, match=r"task.windows=max: is read with data.too_long=window"):
        conftest.make_config("classify", task={"windows": "max"})
