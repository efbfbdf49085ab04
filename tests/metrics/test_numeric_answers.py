"""The number that an answer comes to."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsft.metrics import numeric_answers
from jaxsft.metrics.base import measure
from tests.metrics.answered import answered, odd
from tests.metrics.properties import check

METRIC = numeric_answers.METRICS["numeric_match"]


@pytest.mark.parametrize(
    "text, number",
    [
        ("She has 3 + 4 = 7 eggs.\n#### 7", 7),
        ("#### 1,234.50\n\nQuestion: what is 5?", "1234.5"),
        ("#### no idea, 5 or so\n6", 5),
        ("7\n#### none", None),
        ("The answer is 18.", 18),
        ("between 3-5", 5),
        ("10 - 5 = 5", 5),
        ("x = -5", -5),
        ("-$1,234,567", -1234567),
        ("$-5", -5),
        ("it fell to −3.5 °C", "-3.5"),
        ("one half is .5", "0.5"),
        ("3/4", "3/4"),
        ("3 / 4 of them", "3/4"),
        ("1 1/2 cups", "3/2"),
        ("-2 1/4", "-9/4"),
        (r"\frac{3}{4}", "3/4"),
        (r"-\dfrac{10}{4}", "-5/2"),
        ("50%", 50),
        ("12km", 12),
        ("5 6", 6),
        ("1,23", 23),
        ("2e3", 2000),
        ("1.5E-2", "0.015"),
        ("1/0", None),
        ("答案是１，２３４。", 1234),
        ("答案是-5", -5),
        ("H2O and CO2", None),
        ("no number", None),
        ("", None),
    ],
)
def test_numbers_of_texts(text, number):
    assert numeric_answers.number_of(text) == (None if number is None else Fraction(number))


@given(st.fractions(max_denominator=1000), st.text("abc ,.!我\n", max_size=8))
def test_any_fraction_is_read_again(number, around):
    assert numeric_answers.number_of(f"1 2 {around} = {number}") == number


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1e9, max_value=1e9))
def test_any_decimal_is_read_again(number):
    assert numeric_answers.number_of(f"= {number:,f}") == Fraction(number)


@given(st.text())
def test_any_text_can_be_read(text):
    number = numeric_answers.number_of(text)
    assert number is None or isinstance(number, Fraction)


def test_rows_without_a_right_number_do_not_count():
    rows = [
        ("so 18.0", ["#### 18"]),  # equal as numbers
        ("17", ["18", "17.0"]),
        ("none", ["4"]),
        ("5", ["a text"]),
        ("6", ["7"]),
    ]
    found = measure(METRIC, answered(*zip(*rows, strict=True)))
    assert found == {"numeric_match": 0.5, "numeric_found": 0.75, "numeric_rows": 4}
    assert np.isnan(measure(METRIC, answered(["5"], [["a text"]]))["numeric_match"])


def test_weights_and_compiled_programs():
    rows = [("so 18.0", ["18"]), ("1", ["2"]), ("x", ["3"]), ("4", ["x"])]
    check(METRIC, answered(*zip(*rows, strict=True)))
    check(METRIC, odd())
