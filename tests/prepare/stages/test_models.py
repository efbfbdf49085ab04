"""Stages that ask a model: what it is given, and what becomes of its answers. The model is a plain
function.
"""

import pytest

from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.stage import Context, Report
from jaxsft.prepare.stages.annotate_stage import iob2
from tests.prepare.harness import make, one, rows_of, run, texts


class Model:
    """As `jaxsft.api.Model.predict`: each record with its fields and what is predicted. Writes down
    what it is asked; `say` makes the answer.
    """

    def __init__(self, say, **more):
        self.say, self.more, self.asked = say, more, []

    def __call__(self, records):
        self.asked.append([dict(record) for record in records])
        return [
            {
                **record,
                **(
                    said
                    if isinstance(said := self.say(record), dict)
                    else {"prediction": said, "stopped": True}
                ),
                **self.more,
            }
            for record in records
        ]

    @property
    def context(self):
        return Context(predict=self)


def upper(record):
    return record["prompt"].upper()


# --- translate
# --------------------------------------------------------------------------------------------------
def test_rows_of_other_languages_are_translated_in_every_split():
    model = Model(upper)
    sets = {
        split: rows_of(
            *(
                {"text": f"{lang} {i}", "language": lang}
                for i, lang in enumerate(("de", "en", "fr"))
            )
        )
        for split in ("train", "test")
    }
    out, reports = run(make("translate", model.context, target="en", original="before"), sets)
    for split, rows in out.items():
        assert texts(rows) == ["DE 0", "en 1", "FR 2"] and texts(rows, "language") == ["en"] * 3
        assert [row.fields.get("before") for row in rows] == ["de 0", None, "fr 2"]
        assert reports[split].changed == {"translated": 2}
    assert model.asked[0] == [{"prompt": "de 0"}, {"prompt": "fr 2"}]


def test_which_rows_and_columns_and_in_which_batches():
    model = Model(lambda record: record["q"].upper(), said="x")
    contents = [
        {"q": "a {target}", "text": "b", "language": lang} for lang in ("de", "fr", "de", "de")
    ]
    options = {
        "fields": ["q", "text"],
        "batch": 2,
        "original": "before",
        "template": "{source}-{target}: {text}",
        "input": "q",
    }
    rows, _ = one(
        make("translate", model.context, target="en", sources=["de"], **options), *contents
    )
    assert texts(rows, "q") == [
        "DE-EN: A {TARGET}",
        "a {target}",
        "DE-EN: A {TARGET}",
        "DE-EN: A {TARGET}",
    ]
    assert rows[0].fields["before_q"] == "a {target}" and rows[3].fields["text"] == "DE-EN: B"
    assert list(map(len, model.asked)) == [2, 4]
    rows, _ = one(
        make("translate", model.context, target="en", language=None, input="q", answer="said"),
        "anything",
    )
    assert texts(rows) == ["x"] and model.asked[-1] == [{"q": "anything"}]


def test_a_new_row_is_treated_alone_as_among_others():
    stage = make("translate", Model(upper).context, target="en")
    (row,) = rows_of({"text": "x", "language": "de"})
    assert stage.row(row, {}, Report()) == one(stage, {"text": "x", "language": "de"})[0][0]
    assert (
        make("denoise", Model(upper).context, min_similarity=0.0)
        .row(row, {}, Report())
        .fields["text"]
        == "X"
    )


@pytest.mark.parametrize("answer", [" ", {"prediction": "the beginn", "stopped": False}])
def test_an_empty_or_cut_translation_is_loud(answer):
    model = Model(lambda record: answer)
    with pytest.raises(
        DataError, match=r"rows.jsonl:1: .* is empty or cut off; set stages.translate.failed=drop"
    ):
        one(make("translate", model.context, target="en", language=None), "x")
    rows, report = one(
        make("translate", model.context, target="en", language=None, failed="drop"), "x", ""
    )
    assert texts(rows) == [""] and report.dropped == [("rows.jsonl:1", "no whole translation")]


# --- denoise
# --------------------------------------------------------------------------------------------------
def test_a_correction_is_taken_and_an_invention_is_not():
    said = {
        "teh cat sat": "the cat sat",
        "same": "same",
        "short text": "Something else entirely, at length.",
        "x y z": "",
    }
    model = Model(lambda record: said[record["prompt"].removeprefix("Correct: ")])
    rows, report = one(
        make(
            "denoise",
            model.context,
            min_similarity=0.3,
            original="before",
            template="Correct: {text}",
        ),
        *said,
    )
    assert texts(rows) == ["the cat sat", "same", "short text", "x y z"] and texts(
        rows, "before"
    ) == list(said)
    assert report.changed == {"corrected": 1} and report.marked == {
        "answer too different": 1,
        "no whole answer": 1,
    }
    rows, report = one(
        make("denoise", Model(upper, stopped=False).context, min_similarity=0.0), "a"
    )
    assert texts(rows) == ["a"] and report.marked == {"no whole answer": 1}


def test_the_least_similarity_is_inclusive():
    """abcdef and abcdeg have 3 of 5 sets of three characters in common."""
    model = Model(lambda record: "abcdeg")
    assert texts(one(make("denoise", model.context, min_similarity=3 / 5), "abcdef")[0]) == [
        "abcdeg"
    ]
    assert texts(one(make("denoise", model.context, min_similarity=3 / 5 + 1e-9), "abcdef")[0]) == [
        "abcdef"
    ]


# --- a run of jaxsft
# --------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_trained_run_answers_as_the_stages_expect(tmp_path):
    """A run of two steps writes nonsense; that it is asked and answers in the columns that the
    stages name is what counts.
    """
    from jaxsft import api
    from tests import tiny

    api.train(
        tiny.config(
            tiny.data(tmp_path),
            tmp_path / "run",
            generate={"max_new_tokens": 3},
            train={"duration": "2steps"},
        )
    )
    context = Context(**api.model_functions(str(tmp_path / "run")))
    rows, report = one(make("denoise", context), "2+2=", "1+1=")
    assert texts(rows) == ["2+2=", "1+1="] and report.marked.total() == 2
    _, report = one(
        make("translate", context, target="de", language=None, failed="drop"), "2+2=", "1+1="
    )
    assert len(report.dropped) + report.changed["translated"] == 2
    rows, _ = one(make("annotate", context, take={"prediction": "said"}), {"prompt": "2+2="})
    assert isinstance(rows[0].fields["said"], str)


# --- annotate
# --------------------------------------------------------------------------------------------------
def test_answers_of_a_run_become_columns():
    model = Model(lambda record: {"tags": ["O"] * len(record["tokens"]), "score": 0.5})
    rows, report = one(
        make("annotate", model.context, take={"tags": "ner"}), {"tokens": ["a", "b"], "id": 7}
    )
    assert rows[0].fields == {
        "tokens": ["a", "b"],
        "id": 7,
        "ner": ["O", "O"],
        "annotated_by": "model",
    }
    assert model.asked == [[{"tokens": ["a", "b"], "id": 7}]] and report.changed == {"annotated": 1}


def test_a_guess_never_replaces_what_people_said():
    model = Model(lambda record: {"tags": ["B-X"]})
    with pytest.raises(DataError, match=r"rows.jsonl:1: column 'ner' holds \['O'\] already"):
        one(make("annotate", model.context, take={"tags": "ner"}), {"tokens": ["a"], "ner": ["O"]})
    assert one(
        make("annotate", model.context, take={"tags": "ner"}, replace=True),
        {"tokens": ["a"], "ner": ["O"]},
    )[0][0].fields["ner"] == ["B-X"]
    with pytest.raises(DataError, match=r"gave 1 values of 'ner' for 2 words"):
        one(make("annotate", model.context, take={"tags": "ner"}), {"tokens": ["a", "b"]})


def test_iobes_becomes_iob2():
    assert [iob2(tag) for tag in ("O", "S-X", "B-X", "I-X", "E-X")] == [
        "O",
        "B-X",
        "B-X",
        "I-X",
        "I-X",
    ]
    assert iob2("S-X", first=False) == "I-X"


def test_spacy_adds_its_layers(tmp_path):
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns([{"label": "LOC", "pattern": "New York"}])
    pipeline.add_pipe("attribute_ruler").add([[{"TEXT": {"REGEX": "^[a-z]+$"}}]], {"POS": "NOUN"})

    @spacy.Language.component("chain_of_heads")
    def chain(doc):
        roots = [t.i == 0 or t.text == "." for t in doc]
        heads, deps = (
            [t.i if roots[t.i] else t.i - 1 for t in doc],
            ["root" if root else "dep" for root in roots],
        )
        return spacy.tokens.Doc(doc.vocab, [t.text for t in doc], heads=heads, deps=deps)

    pipeline.to_disk(tmp_path / "model")
    pipeline.add_pipe("chain_of_heads")
    pipeline.to_disk(tmp_path / "tree")
    options = {"method": "spacy", "model": str(tmp_path / "model"), "layers": ["pos", "ner"]}
    rows, _ = one(
        make("annotate", **options), "in  New York", {"text": "", "tokens": ["New", "York", "now"]}
    )
    assert rows[0].fields["tokens"] == ["in", "New", "York"] and rows[0].fields["upos"][0] == "NOUN"
    assert rows[0].fields["ner"] == ["O", "B-LOC", "I-LOC"]
    assert rows[1].fields["ner"] == ["B-LOC", "I-LOC", "O"] and rows[1].fields[
        "annotated_by"
    ] == str(tmp_path / "model")
    rows, _ = one(
        make("annotate", **(options | {"layers": ["dep"], "model": str(tmp_path / "tree")})),
        "one  by one",
    )
    assert {name: rows[0].fields[name] for name in ("tokens", "heads", "deprels")} == {
        # the white space between is no word; what hung on it hangs on what it hung on
        "tokens": ["one", "by", "one"],
        "heads": [0, 1, 2],
        "deprels": ["root", "dep", "dep"],
    }
    with pytest.raises(DataError, match="it has 2 sentences, and a tree is of one"):
        one(
            make("annotate", **(options | {"layers": ["dep"], "model": str(tmp_path / "tree")})),
            "one by . one",
        )
    with pytest.raises(
        ConfigError, match="the pipeline does not say dep; it has entity_ruler, attribute_ruler"
    ):
        one(make("annotate", **(options | {"layers": ["dep"]})), "in New York")
    with pytest.raises(ConfigError, match="spacy cannot load it"):
        make("annotate", method="spacy", model="no_such_model")


@pytest.mark.parametrize("library", ["spacy", "stanza"])
def test_a_library_that_is_missing_is_named(library, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(ConfigError, match=f"stages.annotate.method={library}: install {library}"):
        make("annotate", method=library, model="xx_none")


# --- all of them
# --------------------------------------------------------------------------------------------------
STAGES = [
    ("translate", {"target": "en", "language": None}),
    ("denoise", {}),
    ("annotate", {"take": {"prediction": "said"}}),
]


@pytest.mark.parametrize(("name", "options"), STAGES)
def test_the_contract_with_the_model(name, options):
    with pytest.raises(ConfigError, match=rf"stages.{name}.*none was given"):
        make(name, **options)
    with pytest.raises(
        DataError, match=rf"rows.jsonl:1: stages.{name}: the model gave 1 records for 2"
    ):
        one(make(name, Context(predict=lambda records: [{"prediction": "x"}]), **options), "a", "b")
    with pytest.raises(
        DataError,
        match=(
            rf"rows.jsonl:2: stages.{name}: the model's record has no 'prediction', it has 'answer'"
        ),
    ):
        one(
            make(
                name,
                Context(predict=lambda records: [{"prediction": "x"}, {"answer": "x"}]),
                **options,
            ),
            "a",
            "b",
        )
    with pytest.raises(
        DataError,
        match=rf"rows.jsonl:1: stages.{name}: the model cannot take this row \(too_long\)",
    ):
        one(
            make(
                name,
                Context(predict=lambda records: [{"prediction": None, "dropped": "too_long"}]),
                **options,
            ),
            "a",
        )
    assert one(make(name, Context(predict=lambda records: 1 / 0), **options))[0] == []


@pytest.mark.parametrize(("name", "options"), STAGES[:2])
def test_spans_are_not_torn_from_their_text(name, options):
    with pytest.raises(DataError, match=r"rows.jsonl:1: column 'spans' points into"):
        one(
            make(
                name,
                Model(upper).context,
                **options,
                **({"min_similarity": 0.0} if name == "denoise" else {}),
            ),
            {"text": "ab", "spans": [[0, 1, "X"]]},
        )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("translate", {}), ("translate", {"target": "en", "language": None, "sources": ["de"]}),
        ("translate", {"target": "en", "batch": 0}),
        ("translate", {"target": "en", "template": "x"}),
        ("denoise", {"min_similarity": 2.0}), ("denoise", {"batch": 0}), ("annotate", {}),
        ("annotate", {"take": {"a": 1}}),
        ("annotate", {"layers": ["x"]}), ("annotate", {"method": "spacy"}),
        ("annotate", {"method": "spacy", "model": "x", "take": {"a": "b"}}),
        ("annotate", {"model": "x", "take": {"a": "b"}}),
    ],
)  # fmt: skip
def test_impossible_options(name, options):
    with pytest.raises(ConfigError, match=rf"stages.{name}"):
        make(name, Model(upper).context, **options)
