"""Marks of pictures, sounds and films in texts are media also where no column has them."""

import pytest

from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row
from jaxsft.data.records import chat_record
from jaxsft.data.records.media import without_marks
from jaxsft.errors import DataError


@pytest.mark.parametrize(
    "text, rest",
    [
        ("<image>\nWhat is it?", "What is it?"),
        ("Is <image> like <image_2>?", "Is  like ?"),
        ("What is it?\n<image>", "What is it?\n"),
        ("<|video_1|>\n<audio>\nWhy?", "Why?"),
    ],
)
def test_marks_are_an_error_left_out_or_kept(text, rest):
    with pytest.raises(
        DataError, match=r"message 1 has <.*columns.allow=\[media\].*or \[media_marks\]"
    ):
        without_marks(text, "user", "data.jsonl:117: message 1", ())
    assert without_marks(text, "user", "", ["media"]) == rest
    assert without_marks(text, "user", "", ["media_marks"]) == text


@pytest.mark.parametrize(
    "role, text",
    [
        ("user", "How do I use the <video> tag?"),
        ("user", "What does `<audio>` do?"),
        ("user", "```html\n<video>\n```"),
        ("user", "<video>\n<source src='a.mp4'>\n</video> shows nothing"),
        ("assistant", "Write <video> and a source."),
        ("assistant", "1 < 2 and <b>bold</b>"),
    ],
)
def test_texts_about_html_are_texts(role, text):
    assert without_marks(text, role, "", ()) == text


def test_an_answer_of_a_mark_alone_is_an_answer_of_a_picture():
    with pytest.raises(DataError, match="has <image>"):
        without_marks("Here it is:\n<image>", "assistant", "row", ())


@pytest.mark.parametrize(
    "fields",
    [
        {
            "messages": [
                {"role": "user", "content": "<image>\nWhat is it?"},
                {"role": "assistant", "content": "b"},
            ]
        },
        {"prompt": "<image>\nWhat is it?", "completion": "b"},
        {"instruction": "<image>\nWhat is it?", "output": "b"},
        {
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is it?"},
                {"from": "gpt", "value": "b"},
            ]
        },
    ],
)
def test_in_every_form_of_a_chat(fields):
    row = Row(fields, "data.jsonl", 117)
    with pytest.raises(DataError, match=r"data.jsonl:117: message 1 has <image>"):
        chat_record(row, Columns())
    assert chat_record(row, Columns(allow=["media"])).messages[0].content == "What is it?"
