"""The options of `data`: which files hold the rows, which column holds what, how rows are split and
cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from jaxsft.config.option import option

ALLOW = (
    "assistant_first",
    "repeated_role",
    "no_answer",
    "several_roots",
    "partial_words",
    "discontinuous",
    "absent",
    "media",
    "media_marks",
)


@dataclass(frozen=True)
class Columns:
    """The columns of a file by what they hold, null being the field's own name (for headerless
    files, a number), and how what is found there is read.
    """

    form: str = option(
        "auto",
        "of chats; auto: as the columns tell",
        choices=("auto", "messages", "sharegpt", "alpaca", "prompt"),
    )
    prompt: Optional[str] = option(None, "in the form alpaca the instruction")
    completion: Optional[str] = option(None, "in the form alpaca the output")
    messages: Optional[str] = option(None, "of the form sharegpt too, where null is conversations")
    input: Optional[str] = option(None, "of the form alpaca: what the instruction is about")
    history: Optional[str] = option(None, "of the form alpaca: a list of [question, answer]")
    system: Optional[str] = option(None, "a text that becomes the first message")
    tools: Optional[str] = option(
        None, "the functions that a chat may call, as a list of JSON schemas"
    )
    text: Optional[str] = option(None, "what is read; null: text")
    text_pair: Optional[str] = option(None, "null: there is no second text")
    label: Optional[str] = option(None, "the class of a text; null: label")
    weight: Optional[str] = option(
        None,
        "of training rows: multiplies their loss; in a chat a list may hold a number for each turn;"
        " none: a column `weight` is left alone (it is an error where this is null)",
    )
    cluster: Optional[str] = option(
        None,
        "what a row belongs to (a document, a user): the bounds of numbers draw all rows of one"
        " together",
    )
    schema: Optional[str] = option(
        None, "of generated answers: the JSON Schema that each has to follow, as JSON or its text"
    )
    labels: list[str] = option([], "one-hot columns of 0 and 1, each named as its class")
    targets: list[str] = option([], "numbers; none: the column of the label")
    answers: Optional[str] = option(
        None, "of a question: texts, and the characters of the context at which they begin"
    )
    score: Optional[str] = option(
        None, "of a pair: how near its texts are; null: pairs have a label, or nothing"
    )
    source: Optional[str] = option(None, "of seq2seq: what is read; null: source")
    target: Optional[str] = option(None, "of seq2seq: what is written; null: target")
    references: Optional[str] = option(None, "a list of targets")
    tokens: Optional[str] = option(None, "a list of words; null: tokens, or form (CoNLL-U)")
    tags: Optional[str] = option(None, "a list of tags, one for each word; null: tags")
    heads: Optional[str] = option(None, "null: head or heads")
    deprels: Optional[str] = option(None, "null: deprel or deprels")
    spans: Optional[str] = option(None, "of a text: they become tags of its words")
    label_names: Optional[str] = option(
        None, "a file with the names of the classes by id: a name a line, or JSON"
    )
    no_label: Optional[str] = option(
        None, "the mark of a row that has no label, such as -: it is dropped and counted"
    )
    separator: str = option(
        ",",
        "between the labels of one cell",
        matches=r"(?s).+",
        what="the sign between the labels of a cell",
    )
    features: list[str] = option(
        [], "further columns that are given beside a text: numbers, and names of classes"
    )
    categories: list[str] = option(
        [], "those of the features that are classes although they look like numbers"
    )
    missing: str = option(
        "error",
        "what becomes of a row with a target, or a feature, that is not there",
        choices=("error", "mask"),
    )
    scheme: str = option(
        "auto",
        "how chunks are written in tags; none: a tag stands for itself; auto: the first that fits",
        choices=("auto", "none", "iob2", "iob1", "iobes", "bilou", "bmes", "bmeso"),
    )
    allow: list[str] = option(
        [],
        "what is let through that is an error of a row elsewhere; media: placeholders of images are"
        " left out, media_marks: they stay, as text",
        choices=ALLOW,
    )
    group_references: bool = option(False, "rows of one source are one row with several references")

    def named(self) -> list[str]:
        """Returns the columns of the file that are named in these options."""
        how = (
            "form",
            "label_names",
            "no_label",
            "separator",
            "missing",
            "scheme",
            "allow",
            "group_references",
        )
        given = [
            value
            for name, value in vars(self).items()
            if name not in how and value and (name, value) != ("weight", "none")
        ]
        return [
            column for value in given for column in ([value] if isinstance(value, str) else value)
        ]


@dataclass(frozen=True)
class DataFiles:
    """The files that hold the rows, and how they are read."""

    train: Optional[str] = option(
        None,
        "a file, a pattern, a folder, an archive or a part of one; or hub:owner/name@revision/path",
        hub="file",
        common="Data",
    )
    validation: Optional[str] = option(
        None,
        "as train: its numbers choose the checkpoint and stop training early",
        hub="file",
        common="Data",
    )
    test: Optional[str] = option(
        None, "as train: scored once, with the best checkpoint", hub="file", common="Data"
    )
    path: Optional[str] = option(
        None,
        "one file, split by `fractions`, or a prepared set; excludes train, validation and test",
        hub="file",
        common="Data",
    )
    format: str = option("auto", "auto, or a name from the page of formats")
    header: str = option(
        "auto",
        "whether the first row of a delimited file names its columns: auto | true | false",
        choices=("auto", "true", "false"),
    )
    encoding: str = option("utf-8", "of text files, such as utf-16 or latin-1")
    unit: str = option(
        "line",
        "of a .txt file: file | line | paragraph",
        choices=("file", "line", "paragraph"),
    )
    options: dict[str, Any] = option(
        {},
        "further options of the format, by name; at train, validation or test those of one split",
    )
    columns: Columns = field(default_factory=Columns)
    on_bad_row: str = option(
        "error",
        "quarantine: rows that cannot be read, or give no record, are put aside, counted, and told"
        " in quarantine.jsonl",
        choices=("error", "quarantine"),
    )
    max_dropped: float = option(
        0.1, "the fraction of rows that may be dropped before it is an error", at_least=0, at_most=1
    )


@dataclass(frozen=True)
class MixtureSource:
    path: str = option("???", "as data.train")
    weight: Optional[float] = option(
        None,
        "its share of the rows of training, relative to the other weights; all sources have one, or"
        " none",
        above=0,
    )


@dataclass(frozen=True)
class Mixture:
    """Several data sets of one task, with the same columns, as the training split."""

    sources: list[MixtureSource] = option([], "instead of data.train")
    temperature: float = option(
        1.0,
        "without weights: 1 is proportional to the sizes, more is nearer to equal shares",
        above=0,
        read_if="data.mixture.sources",
    )
    exhausted: str = option(
        "stop",
        "stop: an epoch ends with the first source that is used up | repeat: with the last one |"
        " error: no row is read twice",
        choices=("stop", "repeat", "error"),
        read_if="data.mixture.sources",
    )


@dataclass(frozen=True)
class UsedFiles(DataFiles):
    """Files of which rows may be left out for what a column says of them."""

    keep: dict[str, Any] = option(
        {},
        "by column, the values of rows that are used (any: all); at train ... those of one split",
    )


@dataclass(frozen=True)
class DataConfig(UsedFiles):
    mixture: Mixture = field(default_factory=Mixture)
    fractions: list[float] = option(
        [0.7, 0.15, 0.15],
        "shares of train, validation and test of `data.path`; they sum to 1",
        read_if="data.path",
    )
    split_seed: int = option(
        0, "of the split of `data.path`", at_least=0, below=2**32, read_if="data.path"
    )
    unseen_labels: str = option(
        "error",
        "of validation and test rows: error | drop (they are counted) | learn (the labels of all"
        " splits are learnt)",
        choices=("error", "drop", "learn"),
    )
    max_length: Any = option(
        "auto",
        "tokens of a row; auto: the longest example, up to model.context",
        words=("auto",),
        what="a number of tokens",
        at_least=1,
        common="Data",
    )
    max_source_length: Any = option(
        "auto",
        "of an encoder-decoder model: tokens of a row of sources; auto: the longest source, up to"
        " model.context",
        words=("auto",),
        what="a number of tokens",
        at_least=1,
        read_if="model.decoder_layers>0",
    )
    too_long: str = option(
        "error",
        "a row above max_length: error | drop | truncate_left | truncate_right | window | head_tail"
        " | sentence",
        choices=(
            "error",
            "drop",
            "truncate_left",
            "truncate_right",
            "window",
            "head_tail",
            "sentence",
        ),
        common="Data",
    )
    stride: Optional[int] = option(
        None,
        "with too_long=window: tokens between the beginnings of two windows; null: half a window",
        at_least=1,
        read_if="data.too_long=window",
    )
    require_stop: bool = option(
        True,
        "the last trained token of every assistant turn is a stop token",
        read_if="stops=true",
    )
    limit: Optional[int] = option(
        None,
        "train on so many rows only, evenly spaced; labels and tokenizer are learnt from all",
        at_least=1,
    )
    packing: bool = option(
        True,
        "several short texts share a row, and do not see each other; false: a row for each text",
    )
    plan_seed: int = option(
        0, "of the contents of packed rows; the same for every data seed", at_least=0, below=2**32
    )
    cache_dir: Optional[str] = option(None, "null: the user's cache folder")
