import pytest

from jaxsft.data.chat import symbolic_values


def hole(text="abc"):
    return symbolic_values.Hole(symbolic_values.SymbolicRun([text]), ("data", 0))


def test_nothing_looks_into_a_hole():
    it = hole()
    looks = [
        lambda: isinstance(it, str), lambda: isinstance(it, int | list), lambda: str(it),
        lambda: repr(it), lambda: hash(it),
        lambda: len(it), lambda: list(it), lambda: it[0], lambda: it < "a", lambda: f"{it}",
        lambda: int(it), lambda: float(it),
        lambda: {"abc": 1}.get(it), lambda: it * 2, lambda: "%s".__mod__(it), lambda: it == it,
    ]  # fmt: skip
    for look in looks:
        with pytest.raises(symbolic_values.Looked):
            look()
    for look in (
        lambda: it in "abc",
        lambda: "".join([it]),
        lambda: "abc".startswith(it),
        lambda: "abc".replace("a", it),
    ):
        with pytest.raises(TypeError):
            look()
    assert not it.session.asked


def test_what_is_derived_and_asked_is_that_of_the_string():
    text = " <think>hm</think>\n a "
    it = hole(text)
    read = lambda derived: symbolic_values.reader(derived.expression)([text])
    assert read(it.called("strip", (), {})) == text.strip() and read(it[1:-2]) == text[1:-2]
    assert (
        read(it.called("split", ("</think>",), {"maxsplit": 1})[-1].called("lstrip", ("\n",), {}))
        == " a "
    )
    assert [read(part) for part in it.called("partition", ("hm",), {})] == list(
        text.partition("hm")
    )
    assert (
        "hm" in it and it != "x" and it == text and it and not it.called("startswith", ("<",), {})
    )
    # what was asked can be asked of another row
    assert symbolic_values.reader(("in", ("data", 0), "hm"))(["x"]) is False
    with pytest.raises(IndexError):
        it.called("split", ("</think>",), {})[2]
    assert list(it.session.asked.values()) == [3, True, False, True, True, False, 2]


def test_ends_of_a_text_are_stripped_through_its_holes():
    session = symbolic_values.SymbolicRun(["  ", " b\n"])
    first, second = (symbolic_values.Hole(session, ("data", i)) for i in (0, 1))
    text = symbolic_values.Text(session, [(" \n", 0), (first, 0), (second, 0), ("  ", 0)]).called(
        "strip", (), {}
    )
    [(part, _)] = text.parts
    assert symbolic_values.reader(part.expression)(session.data) == "b"
    assert symbolic_values.stripped(part.expression) == 1 and symbolic_values.bases(
        part.expression
    ) == {1}
