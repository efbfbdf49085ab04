import pytest

from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row
from jaxsft.data.records import Chat, LabelledText, Message, Text, chat_record, label_record, text_record
from jaxsft.errors import DataError

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
    assert chat_record(row(question="a", answer="b", messages=1), columns(prompt="question", completion="answer")) == expected
    with pytest.raises(DataError, match=r"data.jsonl:117: missing column 'completion'.*data.columns.completion="):
        chat_record(row(prompt="a"), columns())
    with pytest.raises(DataError, match="column 'prompt' holds 3, expected a string"):
        chat_record(row(prompt=3, completion="b"), columns())


def test_messages_weights_and_extra_fields():
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": None, "function": {"name": "f", "arguments": {"x": None, "y": 1}}}]}
    record = chat({"role": "system", "content": ""}, USER | {"weight": 0}, call, {"role": "tool", "content": "r", "name": None}, BOT | {"weight": 2})
    assert [message.weight for message in record.messages] == [1, 0, 1, 1, 2]
    assert record.messages[2].content == ""
    assert record.messages[2].extra == {"tool_calls": [{"function": {"name": "f", "arguments": {"y": 1}}}]}  # guards C13
    assert record.messages[3].extra == {}
    assert [message.weight for message in chat(USER, BOT | {"train": False}, USER, BOT | {"train": True}).messages] == [1, 0, 1, 1]
    assert chat(USER, BOT, tools=[{"name": "f", "strict": None}]).tools == ({"name": "f"},)
    assert chat(USER, BOT, tools='[{"name": "f"}]').tools == ({"name": "f"},)


@pytest.mark.parametrize(
    "messages, part",
    [
        ([], "expected a list of messages"),
        ([USER], "no message is from the assistant"),
        ([USER, BOT, USER], "the last message is from 'user'"),
        ([USER | {"role": "human"}, BOT], "message 1 has the role 'human', expected one of system"),
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
    with pytest.raises(DataError, match=r"missing column 'messages': found columns 'question'.*data.columns.prompt"):
        chat_record(row(question="a"), columns())
    with pytest.raises(DataError, match="missing column 'talk'"):
        chat_record(row(prompt="a", completion="b"), columns(messages="talk"))


def test_text():
    assert text_record(row(text=""), columns()) == Text("")
    assert text_record(row(body="x"), columns(text="body")) == Text("x")
    for bad in (None, 3):
        with pytest.raises(DataError, match=r"expected a string; set data.columns.text"):
            text_record(row(text=bad), columns())


@pytest.mark.parametrize(
    "found, label", [("3", "3"), (3, "3"), (3.0, "3"), (True, "true"), (False, "false"), (0, "0"), (1.37e18, "1370000000000000000")]
)
def test_labels_of_any_type(found, label):  # guards D10
    assert label_record(row(text="x", label=found), columns()) == LabelledText("x", None, label)


@pytest.mark.parametrize("bad", [None, "", " ", 1.5, float("nan"), float("inf"), ["a"], {}])
def test_labels_that_are_none(bad):
    with pytest.raises(DataError, match=r"data.jsonl:117: column 'label' holds"):
        label_record(row(text="x", label=bad), columns())


def test_pairs():
    assert label_record(row(a="x", b="y", c="z"), columns(text="a", text_pair="b", label="c")) == LabelledText("x", "y", "z")
    with pytest.raises(DataError, match=r"missing column 'b'.*data.columns.text_pair"):
        label_record(row(text="x", label="z"), columns(text_pair="b"))
