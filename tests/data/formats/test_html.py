import pytest

from jaxsft.data.formats import detect, read, source
from jaxsft.errors import DataError

PAGE = """<!-- saved --><!DOCTYPE html>
<html lang="de"><head><meta charset="utf-8"><title>A &amp; B
 page</title><style>p {color: red}</style><script>var a = "<p>no</p>";</script></head>
<body>
<header><h1>Site</h1></header>
<nav><ul><li><a href="#">Home</a></li></ul></nav>
<div role="search">Search</div><div hidden>secret</div>
<article><header><h2>The&nbsp;head</h2></header>
<p>One <b>bold</b>
  line.<br>Next &lt;line&gt; &#x1F642;</p><p>Unclosed
<ul><li>first<li>second</ul>
<pre>def f():
    return 1

    # end</pre>
<table><tr><th>a<th>b<tr><td> 1 <td></table>
<footer>Of the article</footer></article>
<aside>Ads</aside><footer>Imprint</footer>
<script>late()</script><noscript>no script</noscript></body></html>
"""
TEXT = (
    "The\xa0head\nOne bold line.\nNext <line> 🙂\nUnclosed\nfirst\nsecond\ndef f():\n    return"
    " 1\n\n    # end\na\tb\n1\nOf the article"
)


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def fields(path, quarantine=None, encoding="utf-8", **options):
    return [
        row.fields for row in read(path, options=options, quarantine=quarantine, encoding=encoding)
    ]


def test_a_page_is_its_text_without_what_stands_around_it(tmp_path):
    path = put(tmp_path, "a.html", PAGE)
    assert fields(path) == [
        {"text": TEXT, "title": "A & B page", "language": "de", "folder": tmp_path.name}
    ]
    everything = fields(path, boilerplate=True)[0]["text"].split("\n")
    assert everything[:3] == ["Site", "Home", "Search"] and everything[-2:] == ["Ads", "Imprint"]
    assert not {"secret", "late()", "no script"} & set(everything)


def test_main_is_the_page_where_there_is_one(tmp_path):
    path = put(
        tmp_path,
        "a.htm",
        "<html><body><div>Cookies</div><main><p>Content</p></main><div>More</div></body></html>",
    )
    assert fields(path)[0]["text"] == "Content" and fields(path)[0]["title"] is None
    assert fields(path, boilerplate=True)[0]["text"] == "Cookies\nContent\nMore"


def test_folders_patterns_and_files_without_suffix(tmp_path):
    for name in ("pos/a.html", "neg/b.html"):
        (tmp_path / name).parent.mkdir()
        put(tmp_path, name, f"<p>{name}</p>")
    assert [(row.fields["folder"], row.fields["text"]) for row in read(f"{tmp_path}/*/*.html")] == [
        ("neg", "neg/b.html"),
        ("pos", "pos/a.html"),
    ]
    assert len(read(tmp_path)) == 2
    page = put(tmp_path, "page", PAGE)
    assert detect(source.Source(str(page), page)).name == "html"
    assert fields(put(tmp_path, "fragment.html", "just <i>text</i>"))[0]["text"] == "just text"


def test_the_characters_that_the_page_declares(tmp_path):
    latin = (
        '<html><head><meta http-equiv="Content-Type" content="text/html;'
        ' charset=ISO-8859-1"></head><p>caf\xe9 \x80</p></html>'.encode("latin-1")
    )
    assert fields(put(tmp_path, "a.html", latin))[0]["text"] == "café €"
    assert fields(tmp_path / "a.html", encoding="latin-1")[0]["text"] == "café \x80"
    with pytest.raises(DataError, match="is not valid utf-8"):
        read(put(tmp_path, "b.html", b"<p>caf\xe9</p>"))
    assert fields(put(tmp_path, "c.html", '<meta charset="martian"><p>ü</p>'))[0]["text"] == "ü"


@pytest.mark.parametrize(
    ("page", "line", "reason"),
    [
        ("<p>a</p>\n<nav>\n<p>the rest", 2, "<nav> is never closed"),
        ("<p>a</p>\n<script>\nlate(", 2, "<script> is never closed"),
        ("<html><nav>Home</nav></html>", 1, "no text outside of scripts and navigation"),
    ],
)
def test_a_page_that_hides_its_text_is_bad(tmp_path, page, line, reason):
    bad = []
    put(tmp_path, "a.html", page)
    put(tmp_path, "b.html", "<p>fine</p>")
    assert fields(tmp_path, quarantine=bad.append) == [
        {"text": "fine", "title": None, "language": None, "folder": tmp_path.name}
    ]
    assert [(b.line, b.file) for b in bad] == [(line, f"{tmp_path}/a.html")] and reason in bad[
        0
    ].reason


def test_an_element_inside_one_of_its_kind_stays_hidden(tmp_path):
    assert (
        fields(put(tmp_path, "a.html", "<nav>a<nav>b</nav>c</nav><p>d</p><nav/><p>e</p>"))[0][
            "text"
        ]
        == "d\ne"
    )
