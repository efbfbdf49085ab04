"""DataFrames as rows and back, without a value that changes."""

import datetime
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxsft
from jaxsft.data import formats
from jaxsft.data.frames import from_pandas, to_pandas
from jaxsft.errors import ConfigError, DataError

pd = pytest.importorskip("pandas")


def test_values_become_plain_json():
    frame = pd.DataFrame(
        {
            "text": pd.array(["a", pd.NA], dtype="string"),
            "kind": pd.Categorical(["x", None]),
            "n": pd.array([2**62 + 1, pd.NA], dtype="Int64"),
            "score": np.array([0.5, math.nan], np.float32),
            "flag": pd.array([True, pd.NA], dtype="boolean"),
            "when": pd.to_datetime(["2024-02-29 12:00:00.000000001", None]),
            "zoned": pd.to_datetime(["2024-02-29 12:00", None]).tz_localize("Europe/Berlin"),
            "lasts": pd.to_timedelta(["1 day 00:00:01.5", None]),
            "day": [datetime.date(2024, 1, 1), None],
            "ids": [
                np.array([1, 2]),
                [np.int64(3), {"a": np.float64("nan"), "b": (True, {"z", "y"})}],
            ],
            "month": pd.PeriodIndex(["2024-01", None], freq="M"),
            "stamp": [np.datetime64("2024-01-01T00:00:00.5"), np.timedelta64("NaT")],
            "word": [np.str_("w"), np.bool_(True)],
        },
        index=[7, 7],
    )
    first, second = from_pandas(frame)
    assert first.fields == {
        "text": "a",
        "kind": "x",
        "n": 2**62 + 1,
        "score": 0.5,
        "flag": True,
        "when": "2024-02-29T12:00:00.000000001",
        "zoned": "2024-02-29T12:00:00+01:00",
        "lasts": "P1DT0H0M1.5S",
        "day": "2024-01-01",
        "ids": [1, 2],
        "month": "2024-01",
        "stamp": "2024-01-01T00:00:00.500000",
        "word": "w",
    }
    missing = (
        "text",
        "kind",
        "n",
        "score",
        "flag",
        "when",
        "zoned",
        "lasts",
        "day",
        "month",
        "stamp",
    )
    assert {key: second.fields[key] for key in missing} == dict.fromkeys(missing)
    assert (
        second.fields["ids"] == [3, {"a": None, "b": [True, ["y", "z"]]}]
        and second.fields["word"] is True
    )
    assert [row.where for row in (first, second)] == ["frame:1", "frame:2"]

    def plain(value):
        parts = (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        )
        return type(value) in (str, bool, int, float, list, dict, type(None)) and all(
            map(plain, parts)
        )

    assert all(plain(row.fields) for row in (first, second))


def test_what_has_no_row_is_refused():
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    for frame, part in (
        (twice, "'a' occurs twice"),
        (pd.DataFrame([[1]], columns=[0]), "the column name 0 is no text"),
        (pd.DataFrame({"a": [1, b"x"]}), r"my:2: column 'a' holds a bytes"),
        (
            pd.DataFrame({"a": [[{1: 2}]]}),
            r"my:1: column 'a' has a dict with a key that is no text",
        ),
    ):
        with pytest.raises(DataError, match=part):
            from_pandas(frame, name="my")
    with pytest.raises(ConfigError, match="found a list"):
        from_pandas([{"a": 1}])
    assert from_pandas(pd.DataFrame({"a": []})) == []


value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=2), inside, max_size=2)
    ),
    max_leaves=4,
)
COLUMNS = ("a", "b", "c")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, value)), min_size=1, max_size=4))
def test_rows_come_back_exactly(rows):
    back = [row.fields for row in from_pandas(to_pandas(rows))]
    spelled = lambda rows: repr([[row[name] for name in COLUMNS] for row in rows])
    # 1, 1.0 and True are equal, and not the same
    assert back == rows and spelled(back) == spelled(rows)


def test_types_of_columns():
    rows = [
        formats.Row({"n": 1, "x": 0.5, "ok": True, "t": "a"}, "f", 1),
        {"n": 2, "x": 1.0, "ok": False, "t": "b", "late": 3},
    ]
    frame = to_pandas(rows)
    assert list(frame.columns) == ["n", "x", "ok", "t", "late"] and [
        str(kind) for kind in frame.dtypes[:3]
    ] == ["int64", "float64", "bool"]
    assert from_pandas(frame)[0].fields == {"n": 1, "x": 0.5, "ok": True, "t": "a", "late": None}
    assert len(to_pandas([])) == 0


def test_they_are_part_of_the_package():
    assert (
        jaxsft.from_pandas is from_pandas
        and jaxsft.to_pandas is to_pandas
        and {"from_pandas", "to_pandas"} <= set(dir(jaxsft))
    )
