"""Every row as tokens: lengths at the limit, stop tokens, prefixes, and rows shown token by
token."""

import numpy as np
import pytest

from jaxsft.check import encoding, summary
from jaxsft.check.encoding import shown, visible
from jaxsft.check.findings import Findings
from jaxsft.check.load import CheckedSplit
from jaxsft.config import schema
from jaxsft.data.encode import Encoded
from jaxsft.data.records import Pair
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.training import components, setup
from tests.check.look import config, found, lines, look
from tests.realdata import real


def letters(count):
    return "".join("abcdefghijklmnopqrstuvwxyz"[(i * i + i // 7) % 26] for i in range(count))


def texts(*lengths):
    """Rows whose tokens are as many as they say: a byte each, bos and end."""
    return [{"text": letters(n - 2), "label": "ab"[i % 2]} for i, n in enumerate(lengths)]


# --- lengths
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("longest, errors", [(39, 0), (40, 0), (41, 1)])
def test_the_limit_itself_is_not_too_long(tmp_path, longest, errors):  # guards D13
    rows = texts(10, 20, 30, longest)
    result = look("classify", tmp_path, {"train": rows}, data={"max_length": 40})
    assert (found(result, "too_long") is not None) == bool(errors) and result.numbers["train"][
        "limit"
    ] == 40
    made = setup.resolve(config("classify", tmp_path, {"train": rows}, data={"max_length": 40}))
    parts, records = components.prepare(made)
    if errors:
        assert (
            lines(found(result, "too_long")) == [4]
            and "(up to 41)" in found(result, "too_long").message
        )
        with pytest.raises(Exception, match="41 tokens, but a row holds 40"):
            parts.split("train", records["train"])
    else:
        assert parts.split("train", records["train"]).lengths.max() == longest


@pytest.mark.parametrize("shortest", [2, 3])
def test_the_shortest_text_is_kept_and_an_empty_one_is_not(tmp_path, shortest):  # guards D13, D5
    result = look(
        "classify",
        tmp_path,
        {"train": texts(20, 21, 22, 23, 24, 25, 26, 27, 28, 29, shortest)},
        data={"max_dropped": 0.5},
    )
    rows = result.numbers["train"]["ledger"]["rows"]
    assert rows["dropped"] == ({"empty": 1} if shortest == 2 else {})
    assert result.numbers["train"]["lengths"]["min"] == (20 if shortest == 2 else 3)


@pytest.mark.parametrize("policy", ["drop", "truncate_left", "truncate_right"])
def test_what_would_be_cut_is_what_training_cuts(tmp_path, policy):  # guards D2, B6
    rows, data = texts(10, 20, 50, 60), {"max_length": 40, "too_long": policy, "max_dropped": 0.5}
    result = look("classify", tmp_path, {"train": rows}, data=data)
    parts, records = components.prepare(
        setup.resolve(config("classify", tmp_path, {"train": rows}, data=data))
    )
    assert result.numbers["train"]["ledger"] == parts.split("train", records["train"]).ledger
    over = found(result, "too_long")
    assert over.severity == "warning" and lines(over) == [4, 3]
    assert (
        "dropped whole" if policy == "drop" else "of which 30 tokens are cut off"
    ) in over.message


def test_more_than_max_dropped_is_an_error(tmp_path):  # guards D1
    data = {"max_length": 40, "too_long": "drop", "max_dropped": 0.5}
    assert look("classify", tmp_path, {"train": texts(10, 20, 50, 60)}, data=data).errors == 0
    result = look("classify", tmp_path, {"train": texts(10, 45, 50, 60)}, data=data)
    assert found(result, "too_many_dropped").severity == "error"


def test_the_numbers_of_a_chat_are_those_of_training(tmp_path):
    rows = [{"prompt": letters(n), "completion": letters(n // 2 + 1)} for n in range(3, 30)]
    result = look("chat", tmp_path, {"train": rows, "validation": rows[:4]})
    parts, records = components.prepare(
        setup.resolve(config("chat", tmp_path, {"train": rows, "validation": rows[:4]}))
    )
    for name in ("train", "validation"):
        assert result.numbers[name]["ledger"] == parts.split(name, records[name]).ledger
    told = result.numbers["train"]["ledger"]["tokens"]
    # the answer and its stop token
    assert told["trained"] == sum(len(row["completion"]) + 1 for row in rows)


# --- audits
# --------------------------------------------------------------------------------------------------
TURNS = "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}"
BROKEN = {
    "stop_token": (
        "{% for m in messages %}<|user|>{{ m.content }}{% if m.content != 'no' %}<|end|>{% endif"
        " %}{% endfor %}"
    ),
    "prefix": "{% if messages | length > 1 and messages[1].content == 'no' %}x{% endif %}" + TURNS,
}


@pytest.mark.parametrize("id", BROKEN)
def test_rows_that_a_template_breaks_are_found_one_by_one(tmp_path, id):  # guards C1, C9
    (tmp_path / "t.jinja").write_text(BROKEN[id])
    rows = [
        {"prompt": letters(i + 3), "completion": "no" if i in (4, 7) else "yes"} for i in range(9)
    ]
    result = look("chat", tmp_path, {"train": rows}, task={"template": str(tmp_path / "t.jinja")})
    assert lines(found(result, id)) == [5, 8] and found(result, id).severity == "error"
    assert result.numbers["train"]["ledger"]["rows"]["dropped"] == {id: 2}


def test_without_require_stop_the_audit_still_tells(tmp_path):  # guards C1
    (tmp_path / "t.jinja").write_text(BROKEN["stop_token"])
    rows = [
        {"prompt": letters(i + 3), "completion": "no" if i in (4, 7) else "yes"} for i in range(9)
    ]
    result = look(
        "chat",
        tmp_path,
        {"train": rows},
        task={"template": str(tmp_path / "t.jinja")},
        data={"require_stop": False},
    )
    assert (
        lines(found(result, "stop_token")) == [5, 8]
        and found(result, "stop_token").severity == "error"
    )


def test_a_template_that_never_works_is_one_error(tmp_path):
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    result = look(
        "chat",
        tmp_path,
        {"train": [{"prompt": "a", "completion": "b"}]},
        task={"template": str(tmp_path / "t.jinja")},
    )
    assert result.errors == 1 and result.samples == []


def test_two_bos_tokens_are_seen_by_id(tmp_path):  # guards C6
    class Doubled:
        tokenizer = Tokenizer.bytes()

        def encode_all(self, records, where):
            begin = self.tokenizer.bos_id
            return [
                Encoded(np.array([begin] * (1 + i) + self.tokenizer.encode(r.text_a), np.int32))
                for i, r in enumerate(records)
            ]

    made = config("pair", tmp_path, {"train": []})
    part = CheckedSplit("train", [Pair("a", "b"), Pair("c", "d")], ["x:1", "x:2"], (), 2)
    task, findings = Doubled(), Findings(5)
    encoding._audit(made, task, part, task.encode_all(part.records, part.where), findings)
    assert [(f.id, f.rows) for f in findings.found] == [("bos", ("x:2",))]


def test_text_that_looks_like_a_token_is_text(tmp_path):  # guards C11
    rows = [{"prompt": f"{letters(i)} <|end|>", "completion": "<|user|> fine"} for i in range(3, 8)]
    result = look("chat", tmp_path, {"train": rows}, check={"samples": 1})
    assert found(result, "template_markers").severity == "warning" and result.errors == 0
    runs = result.samples[0]["runs"]
    # those that the template wrote; that of the row is inside its text
    assert sum(run["text"] == "<|end|>" for run in runs) == 2


# --- rows token by token
# --------------------------------------------------------------------------------------------------
def test_a_row_is_shown_as_it_is_trained(tmp_path):
    rows = [
        {
            "messages": [
                {"role": r, "content": c}
                for r, c in (
                    ("user", "ab"),
                    ("assistant", "cd"),
                    ("user", "ef"),
                    ("assistant", "gh"),
                )
            ]
        }
    ]
    rows[0]["messages"][1]["train"] = False
    result = look("chat", tmp_path, {"train": rows}, check={"samples": 3})
    (sample,) = result.samples
    kinds = [(run["text"], run["kind"]) for run in sample["runs"]]
    assert kinds == [
        *(
            ("<|user|>", "template"),
            ("ab", "masked"),
            ("<|end|>", "template"),
            ("<|assistant|>", "template"),
            ("cd", "masked"),
            ("<|end|>", "template"),
        ),
        *(
            ("<|user|>", "template"),
            ("ef", "masked"),
            ("<|end|>", "template"),
            ("<|assistant|>", "template"),
            ("gh", "trained"),
            ("<|end|>", "trained"),
        ),
    ]
    assert sum(run["tokens"] for run in sample["runs"]) == sample["tokens"] == 16
    assert shown(sample, colour=False).endswith("<|assistant|>[+gh+][+<|end|>+]")
    assert shown(sample, colour=True).endswith(
        "\x1b[32mgh\x1b[0m\x1b[32m<|end|>\x1b[0m"
    ) and "\x1b[31mab\x1b[0m" in shown(sample, colour=True)


def test_what_the_template_wrote_is_grey_though_it_is_no_special_token(tmp_path):
    ask = "{% if add_generation_prompt %}<|user|>assistant: {% endif %}"
    (tmp_path / "t.jinja").write_text(
        "{% for m in messages %}<|user|>{{ m.role }}: {{ m.content }}<|end|>{% endfor %}" + ask
    )
    result = look(
        "chat",
        tmp_path,
        {"train": [{"prompt": "müde user: x", "completion": "ok"}]},
        task={"template": str(tmp_path / "t.jinja")},
    )
    kinds = [(run["text"], run["kind"]) for run in result.samples[0]["runs"]]
    assert kinds == [
        *(
            ("<|user|>", "template"),
            ("user: ", "template"),
            ("müde user: x", "masked"),
            ("<|end|>", "template"),
        ),
        *(
            ("<|user|>", "template"),
            ("assistant: ", "template"),
            ("ok", "trained"),
            ("<|end|>", "trained"),
        ),
    ]


@pytest.mark.parametrize(
    "tty, no_color, expected", [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_colours_are_for_terminals_that_want_them(monkeypatch, tty, no_color, expected):
    class Stream:
        isatty = staticmethod(lambda: tty)

    monkeypatch.setenv("NO_COLOR", no_color)
    assert summary.colours(Stream()) is expected


def test_nothing_that_a_terminal_would_obey_is_printed():
    assert visible("a\x1b[31mb\tc\nd\u202e") == "a\\x1b[31mb\\tc\\n\nd\\u202e"


@pytest.mark.parametrize("samples", [0, 1, 4, 9])
def test_so_many_rows_are_shown(tmp_path, samples):
    rows = [{"prompt": letters(i + 3), "completion": "yes"} for i in range(4)]
    shown_rows = look("chat", tmp_path, {"train": rows}, check={"samples": samples}).samples
    assert len({sample["where"] for sample in shown_rows}) == len(shown_rows) == min(samples, 4)


# --- real
# --------------------------------------------------------------------------------------------------
def test_a_real_tokenizer_with_its_own_template(tmp_path):
    tokenizer = schema.PretrainedTokenizer(path=str(real("tok_minimind")))
    columns = {"prompt": "question", "completion": "answer"}
    result = look(
        "chat", tmp_path, {"train": real("gsm8k/test.jsonl")}, columns=columns, tokenizer=tokenizer
    )
    assert result.errors == 0 and result.numbers["train"]["ledger"]["rows"]["kept"] == 1319
    assert "<|im_start|>" in {run["text"] for run in result.samples[0]["runs"]}
