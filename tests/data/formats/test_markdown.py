import pytest

from jaxsft.data.formats import read
from jaxsft.errors import DataError

BODY = """# The *title*

Some **bold** text with a [link](http://x.y "t"), `code` and ![an image](a.png).
Same paragraph &amp; <b>raw</b> HTML.

- one
- two

> quoted

```python
def f():
    return "*"
```

| a | b |
|---|---|
| 1 | 2 |
"""


def put(folder, content, name="a.md"):
    (folder / name).write_bytes(content.encode())
    return folder / name


def fields(path, quarantine=None, **options):
    return [row.fields for row in read(path, options=options, quarantine=quarantine)]


def test_front_matter_becomes_columns(tmp_path):
    row = read(
        put(
            tmp_path,
            "---\ntags: [a, b]\ndate: 2024-02-29\nscore: 1.5\nnested: {x: null}\n---\n\n" + BODY,
        )
    )[0]
    assert row.line == 7 and row.fields == {
        "text": BODY.strip("\n"),
        "title": "The title",
        "folder": tmp_path.name,
        "tags": ["a", "b"],
        "date": "2024-02-29",
        "score": 1.5,
        "nested": {"x": None},
    }
    toml = '+++\r\ntitle = "T"\r\ntime = 07:32:00\r\n+++\r\nbody\r\n'
    assert fields(put(tmp_path, toml)) == [
        {"text": "body", "title": "T", "folder": tmp_path.name, "time": "07:32:00"}
    ]
    assert fields(put(tmp_path, "text\n\n---\n\nmore"))[0] == {
        "text": "text\n\n---\n\nmore",
        "title": None,
        "folder": tmp_path.name,
    }
    assert fields(put(tmp_path, "---\n---\nbody"))[0]["text"] == "body"


def test_text_without_markup(tmp_path):
    assert fields(put(tmp_path, BODY), markup=False)[0]["text"].split("\n") == [
        "The title",
        # as shown: a line break is a space, an image no text
        "Some bold text with a link, code and . Same paragraph & raw HTML.",
        "one",
        "two",
        "quoted",
        "def f():",
        '    return "*"',
        "a\tb",
        "1\t2",
    ]
    assert fields(put(tmp_path, "Setext *title*\n===\ntext"))[0]["title"] == "Setext title"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("---\na: [1\n---\nbody", "the front matter is broken"),
        ("---\n- a\n---\nbody", "found a list, expected fields"),
        ("---\na: &x [1]\nb: *x\n---\nbody", "found an alias"),
        ("---\na: !!python/object:os.system x\n---\nbody", "the front matter is broken"),
        ("---\na: !!binary aGk=\n---\nbody", "found a bytes"),
        ("+++\na = \n+++\nbody", "the front matter is broken"),
        ("---\na: " + "[" * 3000 + "\n---\nbody", "more than 500 brackets"),
        ("---\n" + "- " * 3000 + "\n---\nbody", "the front matter is broken"),
        ("---\ntext: a\n---\nbody", "a field 'text'"),
        ("---\na: 1\n---\n\n", "there is no text"),
    ],
)
def test_a_broken_file_is_one_bad_row(tmp_path, content, reason):
    bad = []
    put(tmp_path, content)
    put(tmp_path, "fine", "b.md")
    assert [row["text"] for row in fields(tmp_path, quarantine=bad.append)] == ["fine"]
    assert len(bad) == 1 and reason in bad[0].reason and bad[0].file.endswith("a.md")
    with pytest.raises(DataError, match=r"data.on_bad_row=quarantine"):
        read(tmp_path / "a.md")
