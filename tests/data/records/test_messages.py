"""Every key of a turn is read, or known to mean nothing, or an error."""

import pytest

from jaxsft.data.formats.row import Struct
from jaxsft.data.records.media import MEDIA
from jaxsft.data.records.messages import FLAGS, THOUGHTS, Message, message_of, shared_message
from jaxsft.errors import DataError

WHERE = "data.jsonl:1: message 2"
BOT = {"role": "assistant", "content": "b"}


def message(**fields):
    return message_of(BOT | fields, WHERE)


def fails(part, allow=(), **fields):
    with pytest.raises(DataError, match=part) as caught:
        message_of(BOT | fields, WHERE, allow)
    assert str(caught.value).startswith(WHERE)


@pytest.mark.parametrize("name", FLAGS)
def test_a_turn_that_its_file_leaves_out_is_not_trained(name):
    for value in (True, False):
        trained = value is FLAGS[name]
        assert message(**{name: value}) == Message("assistant", "b", float(trained))
        assert shared_message({"from": "gpt", "value": "b", name: value}, WHERE).weight == trained
    assert message(**{name: None}).weight == 1
    fails(f"has {name}='no', expected true or false", **{name: "no"})
    fails(f"has {name}=", **{name: [0, 1]})
    asks = {name: FLAGS[name]}
    with pytest.raises(DataError, match="only turns of the assistant are trained"):
        message_of({"role": "user", "content": "a"} | asks, WHERE)
    assert message_of({"role": "user", "content": "a", name: not FLAGS[name]}, WHERE).extra == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"train": True, "loss": False},
        {"masked": True, "trainable": True},
        {"weight": 0, "loss_mask": 1},
        {"weight": 2, "train": False},
    ],
)
def test_keys_of_a_weight_that_contradict_each_other_are_an_error(fields):
    fails("contradict each other", **fields)


def test_zeros_and_ones_of_a_mask():
    assert (
        [message(loss_mask=value).weight for value in (0, 1)]
        == [message(weight=value).weight for value in (0, 1)]
        == [0, 1]
    )
    assert (
        message(weight=0.5, train=True).weight == 0.5 and message(weight=0, masked=True).weight == 0
    )


def test_roles_by_their_newer_and_older_names():
    assert message_of({"role": "developer", "content": "s"}, WHERE) == message_of(
        {"role": "system", "content": "s"}, WHERE
    )
    assert message_of({"role": "function", "name": "up", "content": "ok"}, WHERE) == Message(
        "tool", "ok", 1.0, {"name": "up"}
    )
    for name, role in (
        ("human", "user"),
        ("model", "assistant"),
        ("ai", "assistant"),
        ("ipython", "tool"),
        ("observation", "tool"),
    ):
        assert (
            message_of({"role": name, "content": "s"}, WHERE).role
            == shared_message({"from": name, "value": "s"}, WHERE).role
            == role
        )
    assert shared_message({"from": "developer", "value": "s"}, WHERE).role == "system"
    for role in ("critic", 3, ["user"], None):
        fails("has the role", role=role)
        with pytest.raises(DataError, match="is from"):
            shared_message({"from": role, "value": "x"}, WHERE)


def test_a_function_call_is_a_tool_call():
    call = {"name": "up", "arguments": {"m": 1}}
    expected = [{"type": "function", "function": call}]
    for former in (call, call | {"arguments": '{"m": 1}'}):
        assert message(content=None, function_call=former).extra["tool_calls"] == expected
    assert message(function_call=None).extra == {}
    fails("both function_call and tool_calls", function_call=call, tool_calls=expected)
    fails("has the function_call 3", function_call=3)


def test_nulls_that_somebody_wrote_stay():
    call = {"function": {"name": "find", "arguments": '{"q": "cats", "limit": null}'}}
    assert message(tool_calls=[call]).extra["tool_calls"][0]["function"]["arguments"] == {
        "q": "cats",
        "limit": None,
    }
    given = {"function": {"name": "find", "arguments": {"q": "cats", "limit": None}}}
    assert message(tool_calls=[given]).extra["tool_calls"][0]["function"]["arguments"] == {
        "q": "cats",
        "limit": None,
    }
    columnar = {"function": Struct(name="find", arguments=Struct(q="cats", limit=None))}
    assert message(tool_calls=[columnar]).extra["tool_calls"][0]["function"]["arguments"] == {
        "q": "cats"
    }


def test_parts_of_a_content():
    text = lambda words: {"type": "text", "text": words}
    assert message(content=[text("a "), text("b")]).content == "a b"
    assert message(content=[{"type": "input_text", "text": "a"}]).content == "a"
    for kind in ("image_url", "image", "input_audio", "video"):
        seen = [text("What?"), {"type": kind, kind: "x"}]
        fails(rf"part of the type '{kind}'.*data.columns.allow=\[media\]", content=seen)
        assert message_of(BOT | {"content": seen}, WHERE, ["media"]).content == "What?"
    fails("part of the type 'file'", allow=["media"], content=[{"type": "file"}])
    fails("part of the type null", content=[{"text": "a"}])
    fails("expected a string as its text", content=[text(None)])
    fails("has the content", content=["a"])
    fails("has the content", content={"type": "text", "text": "a"})


@pytest.mark.parametrize("name", MEDIA)
def test_media_beside_a_turn_are_an_error_or_left_out_with_their_marks(name):
    fails(rf"has {name}.*data.columns.allow=\[media\]", **{name: ["1.jpg"]})
    assert message_of(
        BOT | {name: ["1.jpg"], "content": "<image>\nWhat <video>now?"}, WHERE, ["media"]
    ) == Message("assistant", "What now?")
    assert message(**{name: []}).extra == message(**{name: None}).extra == {}


@pytest.mark.parametrize("name", THOUGHTS)
def test_thoughts(name):
    assert message(**{name: "hm"}).extra == {name: "hm"}
    fails(f"the {name} ", **{name: ["hm"]})
    fails("differ", **{name: "hm", THOUGHTS[THOUGHTS.index(name) - 1]: "ha"})


def test_a_turn_of_two_forms_is_an_error():
    with pytest.raises(DataError, match="both from and content"):
        shared_message({"from": "gpt", "value": "a", "content": "b"}, WHERE)
