"""Conversations in all their forms become the same record, or an error that says how to mend
them."""

import csv
import json

import pytest

from jaxsft.config.schema import Columns
from jaxsft.data import formats
from jaxsft.data.formats import Row
from jaxsft.data.records import CHAT, Chat, Message, chat_record, form_of, open_chat
from jaxsft.errors import DataError
from tests.realdata import real

columns = Columns


def row(**fields):
    return Row(fields, "data.jsonl", 117)


def chat(*messages, **fields):
    return chat_record(row(messages=list(messages), **fields), columns())


USER = {"role": "user", "content": "a"}
BOT = {"role": "assistant", "content": "b"}


def test_prompt_and_completion():
    expected = Chat((Message("user", "a"), Message("assistant", "b")))
    assert chat_record(row(prompt="a", completion="b"), columns()) == expected
    assert (
        chat_record(
            row(question="a", answer="b", messages=1),
            columns(prompt="question", completion="answer"),
        )
        == expected
    )
    with pytest.raises(
        DataError, match=r"data.jsonl:117: missing column 'completion'.*data.columns.completion="
    ):
        chat_record(row(prompt="a"), columns())
    with pytest.raises(DataError, match="column 'prompt' holds 3, expected a string"):
        chat_record(row(prompt=3, completion="b"), columns())


def test_messages_weights_and_extra_fields():
    call = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": None, "function": {"name": "f", "arguments": {"x": None, "y": 1}}}],
    }
    record = chat(
        {"role": "system", "content": ""},
        USER | {"weight": 0},
        call,
        {"role": "tool", "content": "r", "name": None},
        BOT | {"weight": 2},
    )
    assert [message.weight for message in record.messages] == [1, 0, 1, 1, 2]
    assert record.messages[2].content == ""
    # guards C13
    assert record.messages[2].extra == {
        "tool_calls": [{"function": {"name": "f", "arguments": {"x": None, "y": 1}}}]
    }
    assert record.messages[3].extra == {}
    assert [
        message.weight
        for message in chat(USER, BOT | {"train": False}, USER, BOT | {"train": True}).messages
    ] == [1, 0, 1, 1]
    assert chat(USER, BOT, tools=[{"name": "f", "strict": None}]).tools == (
        {"name": "f", "strict": None},
    )
    assert chat(USER, BOT, tools='[{"name": "f"}]').tools == ({"name": "f"},)


@pytest.mark.parametrize(
    "messages, part",
    [
        ([], "expected a list of messages"),
        ([USER], "no message is from the assistant"),
        ([USER, BOT, USER], "the last message is from 'user'"),
        (
            [USER | {"role": "pirate"}, BOT],
            "message 1 has the role 'pirate', expected one of system",
        ),
        ([USER | {"role": None}, BOT], "message 1 has the role null"),
        ([USER, BOT | {"content": None}], "message 2 has the content null"),
        ([USER, BOT | {"content": ["x"]}], "message 2 has the content ['x']"),
        ([USER, {"role": "assistant"}], "message 2 has no content"),
        (["a", BOT], "message 1 is 'a'"),
        ([USER, BOT | {"weight": -1}], "the weight -1"),
        ([USER, BOT | {"weight": float("nan")}], "the weight nan"),
        ([USER, BOT | {"weight": "2"}], "the weight '2'"),
        ([USER, BOT | {"weight": True}], "the weight True"),
        ([USER, BOT | {"train": 1}], "train=1"),
        ([USER | {"train": True}, BOT], "only turns of the assistant are trained"),
        ([USER | {"weight": 0.5}, BOT], "only turns of the assistant are trained"),
    ],
)
def test_malformed_conversations_name_row_and_message(messages, part):
    with pytest.raises(DataError) as caught:
        chat(*messages)
    assert str(caught.value).startswith("data.jsonl:117: ") and part in str(caught.value)


def test_broken_tools():
    for tools in ("[", [1], {"name": "f"}):
        with pytest.raises(DataError, match="column 'tools'"):
            chat(USER, BOT, tools=tools)


def test_missing_messages_names_the_options():
    with pytest.raises(
        DataError, match=r"missing column 'messages': found columns 'question'.*data.columns.prompt"
    ):
        chat_record(row(question="a"), columns())
    with pytest.raises(DataError, match="missing column 'talk'"):
        chat_record(row(prompt="a", completion="b"), columns(messages="talk"))


# --- forms
# --------------------------------------------------------------------------------------------------
def said(record):
    return [(message.role, message.content) for message in record.messages]


TALK = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
FORMS = {
    "messages": {"messages": [{"role": role, "content": text} for role, text in TALK]},
    "sharegpt": {
        "conversations": [
            {"from": {"user": "human", "assistant": "gpt"}.get(role, role), "value": text}
            for role, text in TALK
        ]
    },
    "sharegpt, names of openai": {
        "conversations": [{"from": role, "value": text} for role, text in TALK]
    },
    "sharegpt, system apart": {
        "system": "s",
        "conversations": [{"from": role, "value": text} for role, text in TALK[1:]],
    },
    "sharegpt in messages": {"messages": [{"from": role, "value": text} for role, text in TALK]},
    "alpaca": {
        "instruction": "c",
        "input": "",
        "output": "d",
        "system": "s",
        "history": [["a", "b"]],
    },
    "alpaca, no input": {"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]},
    "prompt of messages": {
        "prompt": [{"role": role, "content": text} for role, text in TALK[:-1]],
        "completion": "d",
    },
    "both of messages": {
        "prompt": [{"role": r, "content": t} for r, t in TALK[:-1]],
        "completion": [{"role": "assistant", "content": "d"}],
    },
    "messages in conversations": {
        "conversations": [{"role": role, "content": text} for role, text in TALK]
    },
    "messages as json": {
        "messages": json.dumps([{"role": role, "content": text} for role, text in TALK])
    },
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_the_same_conversation(name):
    assert said(chat_record(row(**FORMS[name], id=7), columns())) == TALK
    assert said(open_chat(row(**FORMS[name]), columns())) == [*TALK[:-1], ("assistant", "")]


def test_columns_of_other_names():
    renamed = row(ask="c", on="x", reply="d", past=[["a", "b"]], who="s")
    names = columns(prompt="ask", input="on", completion="reply", history="past", system="who")
    assert said(chat_record(renamed, names)) == [*TALK[:3], ("user", "c\n\nx"), ("assistant", "d")]
    assert (
        chat_record(row(talk=FORMS["sharegpt"]["conversations"]), columns(messages="talk"))
        .messages[1]
        .role
        == "user"
    )
    assert chat_record(
        row(prompt="a", completion="b", calls=[{"name": "f"}]), columns(tools="calls")
    ).tools == ({"name": "f"},)


def test_columns_of_several_forms_are_an_error_that_names_the_option():
    both = row(**FORMS["messages"], **FORMS["alpaca"])
    with pytest.raises(
        DataError,
        match=r"several forms \(messages, alpaca\); set data.columns.form=messages\|alpaca",
    ):
        form_of(both, columns())
    assert form_of(both, columns(form="alpaca")) == "alpaca"
    fields = {k: v for k, v in both.fields.items() if k != "system"}
    assert said(chat_record(row(**fields), columns(form="messages"))) == TALK


def test_an_open_chat_needs_no_answer():
    assert said(open_chat(row(prompt="a"), columns())) == [("user", "a"), ("assistant", "")]
    assert said(open_chat(row(instruction="a", input="x"), columns())) == [
        ("user", "a\n\nx"),
        ("assistant", ""),
    ]
    assert said(open_chat(row(messages=[USER]), columns())) == [("user", "a"), ("assistant", "")]
    with pytest.raises(DataError, match="nothing to answer"):
        open_chat(row(messages=[BOT]), columns())


@pytest.mark.parametrize(
    "fields, part",
    [
        ({"turns": ["a?", "b?"]}, "questions without answers"),
        ({"instruction": "a"}, "missing column 'output'"),
        ({"instruction": "a", "output": "b", "input": 3}, "data.columns.input"),
        (
            {"instruction": "a", "output": "b", "history": [["x"]]},
            r"turn 1 is \['x'\], expected a list of \[question, answer\]",
        ),
        ({"instruction": "a", "output": "b", "history": "x"}, "data.columns.history"),
        (
            {"conversations": [{"from": "alien", "value": "x"}]},
            "message 1 is from 'alien', expected one of human",
        ),
        ({"conversations": ["x"]}, "message 1 is 'x', expected an object with role and content"),
        (
            {"conversations": [{"from": "human", "value": "a"}, "x"]},
            "message 2 is 'x', expected an object with from and value",
        ),
        ({"conversations": []}, r"holds \[\], expected a list of messages"),
        ({"conversations": [{"from": "human", "value": None}]}, "content null"),
        ({"prompt": "a", "completion": []}, r"holds \[\], expected a string or messages"),
        ({"system": "x", "messages": FORMS["messages"]["messages"]}, "both from the system"),
        ({"messages": "[{"}, "broken JSON"),
    ],
)
def test_a_malformed_form_names_row_and_option(fields, part):
    with pytest.raises(DataError, match=part) as caught:
        chat_record(row(**fields), columns())
    assert str(caught.value).startswith("data.jsonl:117: ")


# --- tool calls
# --------------------------------------------------------------------------------------------------
CALL = {"function": {"name": "add", "arguments": {"x": 1}}}
CALLS = {
    "openai, a JSON string": {
        "tool_calls": [
            {"id": "7", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}
        ]
    },
    "openai, an object": {"tool_calls": [{"id": "7", "type": "function", **CALL}]},
    "without a frame": {"tool_calls": [{"name": "add", "arguments": {"x": 1}}]},
    "the list as a JSON string": {
        "tool_calls": json.dumps([{"name": "add", "arguments": {"x": 1}}])
    },
    "parameters": {"tool_calls": [{"name": "add", "parameters": {"x": 1}}]},
}


@pytest.mark.parametrize("name", CALLS)
def test_tool_calls_come_out_alike(name):  # guards C13
    record = chat(
        USER,
        {"role": "assistant", "content": None, **CALLS[name]},
        {"role": "tool", "content": "2"},
        BOT,
    )
    call = record.messages[1].extra["tool_calls"][0]
    assert call["function"] == CALL["function"] and record.messages[1].content == ""
    assert call.get("id") == ("7" if name.startswith("openai") else None)


def test_sharegpt_calls_become_tool_calls():
    turns = [
        ("human", "a"),
        ("gpt", "let me"),
        ("function_call", '{"name": "add", "arguments": {"x": 1}}'),
        ("function_call", json.dumps(CALL)),
    ]
    turns += [("observation", "2"), ("observation", "3"), ("gpt", "five")]
    record = chat_record(
        row(conversations=[{"from": a, "value": b} for a, b in turns], tools='[{"name": "add"}]'),
        columns(),
    )
    assert said(record) == [
        ("user", "a"),
        ("assistant", "let me"),
        ("tool", "2"),
        ("tool", "3"),
        ("assistant", "five"),
    ]
    assert record.messages[1].extra["tool_calls"] == [CALL, CALL] and record.tools == (
        {"name": "add"},
    )


def test_tools_in_the_system_message_are_those_of_the_conversation():
    """As MiniMind writes them: role and content in `conversations`, tools and calls as JSON
    text."""
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": json.dumps([{"name": "add", "arguments": {"x": 1}}]),
    }
    turns = [
        {"role": "system", "content": "s", "tools": '[{"name": "add"}]'},
        USER,
        call,
        {"role": "tool", "content": "2"},
        BOT,
    ]
    record = chat_record(row(conversations=turns), columns())
    assert (
        record.tools == ({"name": "add"},)
        and record.messages[0] == Message("system", "s")
        and record.messages[2].extra["tool_calls"] == [CALL]
    )
    with pytest.raises(DataError, match="both have tools"):
        chat_record(row(conversations=turns, tools=[{"name": "f"}]), columns())


@pytest.mark.parametrize(
    "call, part",
    [
        ("[", "broken JSON"),
        ([3], "expected a list of objects"),
        ([{"arguments": {}}], "expected the name of a function"),
        ([{"name": "f", "arguments": "{"}], "the arguments of f holds broken JSON"),
        ([{"name": "f", "arguments": [1]}], r"the arguments of f are \[1\], expected an object"),
    ],
)
def test_a_broken_call_names_the_message(call, part):
    with pytest.raises(DataError, match=f"data.jsonl:117: message 2.*{part}"):
        chat(USER, {"role": "assistant", "content": None, "tool_calls": call}, BOT)
    with pytest.raises(DataError, match="only the assistant calls tools"):
        chat(USER | {"tool_calls": [{"name": "f"}]}, BOT)


# --- order
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "turns, allow, kept",
    [
        ([USER, BOT, USER], "no_answer", 2),
        ([USER, BOT, USER, USER], "no_answer", 2),
        ([BOT, USER, BOT], "assistant_first", 3),
        ([{"role": "system", "content": "s"}, BOT], "assistant_first", 2),
        ([USER, USER, BOT], "repeated_role", 3),
        ([USER, BOT, BOT], "repeated_role", 3),
    ],
)
def test_turns_out_of_order_are_an_error_that_names_what_allows_them(turns, allow, kept):
    with pytest.raises(DataError, match=rf"data.columns.allow=\[{allow}\]"):
        chat_record(row(messages=turns), columns())
    assert len(chat_record(row(messages=turns), columns(allow=[allow])).messages) == kept


def test_results_of_several_calls_may_follow_each_other():
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}, {"name": "g"}]}
    assert (
        len(
            chat(
                USER, call, {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}, BOT
            ).messages
        )
        == 5
    )


# --- real files
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "file, names, rows, first",
    [
        ("fastchat_mtbench/dummy_conversation.json", {}, None, "user"),
        ("gpteacher/roleplay.json.gz", {}, None, "user"),
        ("gsm8k/test.jsonl", {"prompt": "question", "completion": "answer"}, 1319, "user"),
    ],
)
def test_real_conversations(file, names, rows, first):
    found = formats.read(real(file))
    records = [chat_record(r, columns(**names)) for r in found]
    assert len(records) == (rows or len(found)) and {r.messages[0].role for r in records} == {first}
    assert all(text is not None for r in records for text in CHAT.texts(r))


def test_real_questions_without_answers():
    with pytest.raises(
        DataError,
        match=r"mt_bench_question.jsonl:1: column 'turns' holds questions without answers",
    ):
        chat_record(formats.read(real("fastchat_mtbench/mt_bench_question.jsonl"))[0], columns())


# --- what stands beside the turns
# --------------------------------------------------------------------------------------------------
PICTURE = {
    "messages": [{"role": "user", "content": "<image>What is it?"}, BOT],
    "images": ["0.jpg"],
}


def test_pictures_of_a_chat_are_an_error_or_left_out():
    for name in ("images", "videos", "audios", "image_url", "image_path", "videoFile"):
        fields = {"messages": PICTURE["messages"], name: ["0.jpg"]}
        with pytest.raises(
            DataError, match=rf"data.jsonl:117: the row has {name}.*data.columns.allow=\[media\]"
        ):
            chat_record(row(**fields), columns())
        assert said(chat_record(row(**fields), columns(allow=["media"]))) == [
            ("user", "What is it?"),
            ("assistant", "b"),
        ]
    assert chat_record(row(messages=[USER, BOT], images=[]), columns()).messages


@pytest.mark.parametrize(
    "fields, how",
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "data.columns.completion=chosen"),
        ({"chosen": [USER, BOT], "rejected": [USER, BOT]}, "data.columns.messages=chosen"),
        ({"prompt": [USER], "chosen": [BOT], "rejected": [BOT]}, "data.columns.completion=chosen"),
        ({"messages": [USER, BOT], "rejected_response": "c"}, "data.columns.completion=<column>"),
        ({"prompt": "a", "completion": "b", "label": False}, "keep the rows with good answers"),
        ({"prompt": "a", "completion": "b", "label": True}, "keep the rows with good answers"),
        ({"prompt": "a", "completion": "b", "reward": 0.1}, "keep the rows with good answers"),
        ({"messages": [USER, BOT], "kto_tag": True}, "keep the rows with good answers"),
        ({"prompt": "a", "completion": "b", "preference": 0}, "keep the rows with good answers"),
        ({"prompt": "a", "completion": "b", "label": -1}, "keep the rows with good answers"),
        ({"prompt": "a", "completion": "b", "negative": "c"}, "data.columns.completion=<column>"),
        (
            {"instruction": "a", "output": "b", "response_rejected": "c"},
            "data.columns.completion=<column>",
        ),
    ],
)
def test_preferences_are_no_good_answers(fields, how):
    with pytest.raises(DataError, match="preference data") as caught:
        chat_record(row(**fields), columns())
    assert how in str(caught.value)


def test_the_chosen_answers_can_be_named():
    taken = chat_record(row(prompt="a", chosen="b", rejected="c"), columns(completion="chosen"))
    assert (
        said(taken)
        == said(chat_record(row(chosen=[USER, BOT], rejected=[]), columns(messages="chosen")))
        == [("user", "a"), ("assistant", "b")]
    )
    assert chat_record(row(prompt="a", completion="b", label="sports"), columns()).messages
    assert chat_record(row(prompt="a", completion="b", label=7, rejected=False), columns()).messages


def test_an_input_of_blanks_is_none():
    for blank in ("", "   ", "\n", None):
        assert chat_record(row(instruction="a", input=blank, output="b"), columns()).messages[
            0
        ] == Message("user", "a")


def test_functions_are_tools_and_variables_of_a_row_are_an_error():
    assert chat(USER, BOT, functions=[{"name": "f"}]).tools == (
        {"type": "function", "function": {"name": "f"}},
    )
    with pytest.raises(DataError, match="'tools' and 'functions'"):
        chat(USER, BOT, functions=[{"name": "f"}], tools=[{"name": "f"}])
    with pytest.raises(DataError, match=r"chat_template_kwargs.*task\.variables"):
        chat(USER, BOT, chat_template_kwargs={"enable_thinking": False})


def test_a_schema_keeps_its_nulls():
    schema = {"name": "find", "parameters": {"properties": {"limit": {"default": None}}}}
    assert (
        chat(USER, BOT, tools=json.dumps([schema])).tools
        == chat(USER, BOT, tools=[schema]).tools
        == (schema,)
    )


@pytest.mark.parametrize("prompt", [{}, {"prompt": "a"}])
def test_preferences_of_whole_conversations_name_the_field(prompt):
    """UltraFeedback, binarized, has the prompt again as the first message of each answer."""
    rows = row(**prompt, chosen=[USER, BOT], rejected=[USER, BOT | {"content": "c"}])
    with pytest.raises(DataError, match=r"rejected: preference data.*data.columns.messages=chosen"):
        chat_record(rows, columns())
    assert said(chat_record(rows, columns(messages="chosen"))) == [
        ("user", "a"),
        ("assistant", "b"),
    ]
    rows = row(prompt="a", chosen=[BOT], rejected=[BOT])
    with pytest.raises(DataError, match=r"data.columns.completion=chosen"):
        chat_record(rows, columns())


@pytest.mark.parametrize("spell", [json.dumps, str])
@pytest.mark.parametrize(
    "turns", [[USER, BOT], [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]]
)
def test_turns_in_a_cell_of_a_table(spell, turns, tmp_path):
    """As pandas writes a column of lists, and as a JSON text."""
    path = tmp_path / "chats.csv"
    cell = spell(turns).replace('"', '""')
    path.write_text(f'talk,n\n"{cell}",1\n', encoding="utf-8")
    given = columns(messages="talk")
    (found,) = formats.stream(path, columns=[*CHAT.inputs(given), *CHAT.outputs(given)])
    assert chat_record(found, given) == Chat((Message("user", "a"), Message("assistant", "b")))


def test_turns_in_a_cell_that_are_neither_json_nor_python():
    with pytest.raises(DataError, match=r"'messages' holds broken JSON .* and no list of Python"):
        chat_record(row(messages="[{'role': user}]"), columns())


TURNS = [{"role": "user", "content": "Hi, you"}, {"role": "assistant", "content": "Yes."}]
SHARED = [{"from": "human", "value": "Hi, you"}, {"from": "gpt", "value": "Yes."}]


@pytest.mark.parametrize(
    "header, cells, form",
    [
        (["messages"], [json.dumps(TURNS)], "messages"),
        (["id", "messages"], ["1", repr(TURNS)], "messages"),
        (["id", "conversations"], ["1", json.dumps(SHARED)], "sharegpt"),
        (["instruction", "output"], ["Hi, you", "Yes."], "alpaca"),
        (["prompt", "completion"], ["Hi, you", "Yes."], "prompt"),
    ],
)
@pytest.mark.parametrize("suffix, sign", [("csv", ","), ("tsv", "\t"), ("csv", ";")])
def test_a_table_of_any_form_needs_no_option(header, cells, form, suffix, sign, tmp_path):
    """Its columns are those of other files, and a list of messages is spelled in its cell."""
    file = tmp_path / f"chats.{suffix}"
    with file.open("w", newline="") as out:
        csv.writer(out, delimiter=sign).writerows([header, cells, cells])
    for asked in (Columns(), Columns(form=form)):
        rows = formats.read(file, columns=[*CHAT.inputs(asked), *CHAT.outputs(asked)])
        assert len(rows) == 2
        for one in rows:
            found = chat_record(one, asked).messages
            assert [(m.role, m.content) for m in found] == [
                ("user", "Hi, you"),
                ("assistant", "Yes."),
            ]


def test_a_table_of_none_of_the_forms_names_the_first(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\na,b\nc,d\n")
    with pytest.raises(DataError, match="missing column 'prompt': the first row is 'question'"):
        formats.read(
            tmp_path / "a.csv", columns=[*CHAT.inputs(Columns()), *CHAT.outputs(Columns())]
        )
