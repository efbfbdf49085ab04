"""Ids of a real template, against those that transformers gives (`tools/golden/chat.py`)."""

import hashlib
import json
from pathlib import Path

import pytest

from jaxsft.config.schema import Columns
from jaxsft.data.chat.templates import Template
from jaxsft.data.formats import Row
from jaxsft.data.records import CHAT
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from tests.realdata import real

GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "minimind_chat.json").read_text(encoding="utf-8")
)
CASES = {case["name"]: case for case in GOLDEN["cases"]}


@pytest.fixture(scope="module")
def minimind():
    found = Tokenizer.load(real("tok_minimind"))
    assert hashlib.sha256(found.chat_template.encode()).hexdigest() == GOLDEN["template_sha256"]
    assert (
        hashlib.sha256((real("tok_minimind") / "tokenizer.json").read_bytes()).hexdigest()
        == GOLDEN["tokenizer_sha256"]
    )
    return found


@pytest.mark.parametrize("name", CASES)
def test_ids_are_those_of_transformers(minimind, name):  # guards C4 C6 C9 C10 C13
    case = CASES[name]
    fields = {"messages": case["messages"], "tools": case.get("tools")}
    talk = CHAT.record(Row(fields, "golden", 1), Columns())
    template = Template.of(minimind, variables=case.get("variables"))
    for _ in range(2):  # the second time from the learnt layout
        rendered = template.render(talk, "golden:1")
        assert rendered.ids == case["ids"]
    answers = [index for _, _, index in rendered.turns]
    assert [str(index) for index in answers] == list(case["prompts"])
    for start, end, index in rendered.turns:
        # guards C1 C5 C7: what is trained begins where the generation prompt ends, and ends with
        # the stop token
        assert (
            case["prompts"][str(index)]
            == rendered.ids[:start]
            == template.prompt(talk.messages[:index], "golden:1", talk.tools)
        )
        assert rendered.ids[end - 1] in template.stop_ids and not set(
            rendered.ids[start : end - 1]
        ) & set(template.stop_ids)
        assert rendered.weights[start:end].all()
    assert (
        rendered.weights.sum()
        == sum(end - start for start, end, _ in rendered.turns)
        < len(rendered.ids)
    )
