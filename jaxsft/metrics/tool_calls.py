"""Whether an answer calls the tools that a reference calls, with the same arguments.

Calls are written as chat templates write them: `<tool_call>{"name": …, "arguments": {…}}
</tool_call>` (ChatML of Qwen and Hermes), a list behind `[TOOL_CALLS]` (Mistral), an object behind
`<|python_tag|>` (Llama 3), or JSON alone: an object or a list of them, also in OpenAI's form. What
stands around `<tool_call>` is not read.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np

from jaxsft import documents
from jaxsft.data.records.messages import message_of
from jaxsft.errors import DataError
from jaxsft.metrics.base import Metric, Outputs, ratio
from jaxsft.metrics.json_answers import canonical
from jaxsft.metrics.text_overlap import references_of

_FRAMED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
_MARKS = ("[TOOL_CALLS]", "<|python_tag|>")
NAMES = ("tool_call_match", "tool_name_match", "tool_call_valid", "tool_call_rows")


def calls_of(text: str) -> list[dict[str, Any]]:
    """Returns the calls of a text in order, `{"name", "arguments"}`; none where it calls nothing.

    Raises:
      DataError: a call begins that cannot be read.
    """
    if framed := _FRAMED.findall(text):
        found = [_json(part) for part in framed]
    else:
        text = text.strip()
        mark = next((mark for mark in _MARKS if text.startswith(mark)), "")
        try:
            found = _json(text.removeprefix(mark))
        except DataError:
            if mark:
                raise
            return []
        found = found if isinstance(found, list) else [found]
        if not mark and not (found and all(map(_is_call, found))):
            return []  # JSON that calls nothing
    turn = {"role": "assistant", "content": None, "tool_calls": found}
    calls = message_of(turn, "the text").extra.get("tool_calls", ())
    return [{key: call["function"][key] for key in ("name", "arguments")} for call in calls]


def _json(text: str) -> Any:
    try:
        return documents.decode(text.strip())
    except ValueError as error:
        raise DataError(f"a tool call is no JSON ({error})") from None


def _is_call(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("function"), dict):
        return "name" in value["function"]
    return "name" in value and ("arguments" in value or "parameters" in value)


def observe(outputs: Outputs) -> dict[str, Any]:
    """Returns of each row whether it is about calls, and whether those of the answer can be read,
    have the names and are the calls of a reference, in any order.

    Raises:
      DataError: a call of a reference cannot be read.
    """
    rows = []
    pairs = zip(outputs.rows, outputs["answer"], references_of(outputs), strict=True)
    for row, answer, references in pairs:
        try:
            right = [calls_of(reference) for reference in references]
        except DataError as error:
            raise DataError(f"row {row}: of a reference, {error}") from None
        try:
            calls, valid = calls_of(answer), True
        except DataError:
            calls, valid = [], False
        counts = any(right) or bool(calls) or not valid
        same = lambda of: (
            valid and any(Counter(map(of, calls)) == Counter(map(of, r)) for r in right)
        )
        numbers = (same(canonical), same(lambda call: call["name"]), valid)
        rows.append([counts and number for number in numbers] + [counts])
    columns = np.array(rows, np.float64).reshape(-1, len(NAMES)).T
    return dict(zip(NAMES, columns, strict=True))


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes, of the rows in which the answer or a reference calls something, the share of
    answers with the same calls, with calls of the same names, and whose calls can be read.
    """
    *shares, rows = NAMES
    return {name: ratio(state[name], state[rows]) for name in shares} | {rows: state[rows]}


METRICS = {
    "tool_call_match": Metric(
        NAMES, ("answer", "references"), observe, value, counts=("tool_call_rows",)
    )
}
