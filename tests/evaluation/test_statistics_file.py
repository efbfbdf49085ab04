"""The file of statistics: what is written is read, and what is damaged is refused."""

import json
import zipfile

import numpy as np
import pytest

from jaxsft.errors import DataError
from jaxsft.evaluation import measured, statistics_file
from jaxsft.evaluation.statistics_file import RowStatistics
from jaxsft.metrics.base import Cells, Outputs
from jaxsft.metrics.by_name import METRICS
from tests.evaluation import two_runs


def content():
    rng = np.random.default_rng(0)
    return RowStatistics(
        {
            "a": {"x": rng.normal(size=(5, 2)), "flag": rng.random(5) < 0.5},
            "b": Cells(np.array([0, -1, 3, 2, 2]), (2, 2)),
            "c": Cells(np.array([0, 1, 1]), (2,), np.array([0, 0, 4])),
            "d": {"deep": {"y": np.arange(2, dtype=np.float32)}},
        },
        np.array([0, 2, 3, 7, 9]),
        statistics_file.digests([{"text": f"Straße {i}"} for i in range(5)]),
        np.array(["p", "p", "q", "q", "q"]),
        {"d": np.array([1, 4])},
        {"b": ("no", "yes")},
        "accuracy",
    )


def test_what_is_written_is_read(tmp_path):
    given = content()
    statistics_file.save(tmp_path / "test.npz", given)
    found = statistics_file.load(tmp_path / "test.npz")
    np.testing.assert_array_equal(found.rows, given.rows)
    np.testing.assert_array_equal(found.digests, given.digests)
    np.testing.assert_array_equal(found.clusters, given.clusters)
    assert found.labels == given.labels and found.chosen == "accuracy"
    np.testing.assert_array_equal(found.rows_of("d"), [2, 9])
    assert list(found.clusters_of("d")) == ["p", "q"]
    for name, value in given.metrics["a"].items():
        np.testing.assert_array_equal(found.metrics["a"][name], value)
        assert found.metrics["a"][name].dtype == value.dtype
    np.testing.assert_array_equal(found.metrics["b"].index, given.metrics["b"].index)
    np.testing.assert_array_equal(found.metrics["c"].row, [0, 0, 4])
    assert found.metrics["c"].shape == (2,) and found.metrics["b"].row is None
    assert list(found.metrics["d"]["deep"]["y"]) == [0, 1]


def test_statistics_of_a_split_whose_metrics_have_other_rows():
    """The rows of a metric are ascending; one of fewer rows says which."""
    outputs = two_runs.labels(6)
    order = np.array([4, 0, 2, 5, 1, 3])
    turned = Outputs(order, {k: v[order] for k, v in outputs.arrays.items()}, outputs.labels)
    answered = Outputs(np.array([1, 4]), {"stopped": np.array([1.0, 0.0])})
    found = {
        **measured.measure(["label_scores"], [], turned, "classify"),
        **measured.measure(["stop_rate"], [], answered, "chat"),
    }
    given = statistics_file.of_measured(found, two_runs.records(outputs), list("aabbcc"))
    np.testing.assert_array_equal(given.rows, np.arange(6))
    expected = METRICS.take("label_scores").observe(outputs)
    np.testing.assert_array_equal(given.metrics["label_scores"].index, expected.index)
    np.testing.assert_array_equal(given.places["stop_rate"], [1, 4])
    assert given.labels["label_scores"] == two_runs.LABELS
    assert list(given.clusters_of("stop_rate")) == ["a", "c"]


def rewritten(path, change, compress=zipfile.ZIP_STORED):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays["header"].tobytes())
    change(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    (np.savez if compress == zipfile.ZIP_STORED else np.savez_compressed)(path, **arrays)


def sealed(change):
    """Makes a change that its hash agrees with."""

    def of(header, arrays):
        change(header, arrays)
        others = {name: x for name, x in arrays.items() if name != "header"}
        header["sha256"] = statistics_file._sha256(others)

    return of


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, a: a["metric.0.0"].__setitem__((0, 0), 9.0), "is damaged"),
        (lambda h, a: h.update(version=7), "has version 7"),
        (lambda h, a: h.pop("metrics"), "not a file of statistics"),
        (lambda h, a: h["metrics"].update(a={"array": "gone"}), "not a file of statistics"),
        (lambda h, a: h["metrics"].update(a={"array": []}), "not a file of statistics"),
        (sealed(lambda h, a: a.update(rows=a["rows"][:4])), "do not fit together"),
        (sealed(lambda h, a: a["rows"].__setitem__(1, 0)), "do not fit together"),
        (sealed(lambda h, a: a["metric.1.index"].__setitem__(0, 4)), "b: a table has cells"),
        (sealed(lambda h, a: a["metric.2.row"].__setitem__(0, 5)), "c: a table has cells"),
        (sealed(lambda h, a: h["metrics"]["b"].update(shape=[2**40, 2**40])), "b: a table"),
        (sealed(lambda h, a: a["places.3"].__setitem__(0, -1)), "d: has rows that are not there"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, message):
    path = tmp_path / "test.npz"
    statistics_file.save(path, content())
    rewritten(path, change)
    with pytest.raises(DataError, match=message):
        statistics_file.load(path)


def test_what_is_no_such_file(tmp_path):
    path = tmp_path / "test.npz"
    with pytest.raises(DataError, match="is missing"):
        statistics_file.load(path)
    for text in (b"", b"PK\x03\x04 half", b"no zip at all"):
        path.write_bytes(text)
        with pytest.raises(DataError, match="not a file of statistics"):
            statistics_file.load(path)
    statistics_file.save(path, content())
    rewritten(path, lambda header, arrays: None, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="compressed"):
        statistics_file.load(path)
    np.savez(path, header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="not a file of statistics"):
        statistics_file.load(path)
    np.savez(path, rows=np.arange(3))
    with pytest.raises(DataError, match="no header"):
        statistics_file.load(path)
