"""Every option of jaxsft, typed. These frozen objects are what the code sees; `config/compose.py`
builds them from the composed Hydra config.

A field that does not apply to an option does not exist in that option's class. Durations are
strings with a unit: `60steps`, `3epochs`, `10000examples`, `5%` (of the whole training).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from jaxsft import plugins
from jaxsft.config.adapters import AdapterConfig, NoAdapter
from jaxsft.config.model import ModelConfig
from jaxsft.config.optim import AdamW, OptimConfig
from jaxsft.config.option import option
from jaxsft.config.tasks import (  # noqa: F401
    TASKS,
    ChatTask,
    ClassifyTask,
    JointTask,
    LMTask,
    MLMTask,
    MultiLabelTask,
    PairTask,
    ParseTask,
    RegressTask,
    Seq2SeqTask,
    SpanCorruptionTask,
    SpanTask,
    TagTask,
    TaskConfig,
)
from jaxsft.config.tokenizers import (
    BpeTokenizer,
    BytesTokenizer,
    CharTokenizer,
    PretrainedTokenizer,
    TokenizerConfig,
    UnigramTokenizer,
    WordPieceTokenizer,
    WordTokenizer,
)

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
SMOOTHED = (
    "output=vocabulary or output=words and task.crf!=true or answer=label|labels or"
    " answer=comparison and task.loss=cross_entropy"
)
FROZEN = "(?!head/).*"  # all but the head: what a cached backbone freezes
_MOVES = "a cached backbone gives the same numbers in every epoch"
CACHED = (  # what would train the backbone, or make of one text another vector in every epoch
    ("adapter=none", "it trains inside the backbone, which is frozen"),
    ("train.unfreeze_every=null", "the backbone stays frozen"),
    ("model.train_rows=all", "the embedding is frozen"),
    ("model.dropout=0", _MOVES),
    ("train.neftune=null", _MOVES),
    ("loss.balance=0", "the routers are frozen"),
    ("loss.router_z=0", "the routers are frozen"),
)


# --- data
# --------------------------------------------------------------------------------------------------
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


# --- schedule
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ScheduleConfig:
    name: str = "???"
    warmup: str = option(
        "5%",
        "a duration in which the rate rises from 0 to its peak",
        duration=True,
        common="Training",
    )


@dataclass(frozen=True)
class Constant(ScheduleConfig):
    name: str = "constant"


@dataclass(frozen=True)
class LinearDecay(ScheduleConfig):
    name: str = "linear"
    final: float = option(0.0, "as a fraction of the peak", at_least=0)


@dataclass(frozen=True)
class Cosine(ScheduleConfig):
    name: str = "cosine"
    final: float = option(0.0, "the last rate, as a fraction of the peak", at_least=0)


@dataclass(frozen=True)
class InverseSqrt(ScheduleConfig):
    name: str = "inverse_sqrt"


@dataclass(frozen=True)
class WSD(ScheduleConfig):
    name: str = "wsd"
    decay: str = option("20%", "a duration, at the end, in which the rate falls", duration=True)
    final: float = option(0.0, "the last rate, as a fraction of the peak", at_least=0)


# --- loss and training
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Penalty:
    kind: str = option(
        "l2",
        "sum of the absolute values (l1) or of the squares (l2): l1 | l2",
        choices=("l1", "l2"),
    )
    pattern: str = option(".*", "a regex for the whole path of the parameters")
    weight: float = option(0.0, "what the sum is multiplied by in the loss", above=0)


@dataclass(frozen=True)
class LossConfig:
    label_smoothing: float = option(
        0.0,
        "share of the target that is spread over all classes",
        at_least=0,
        below=1,
        read_if=SMOOTHED,
    )
    z_loss: float = option(
        0.0,
        "weight of the squared logarithm of the softmax's denominator",
        at_least=0,
        read_if="output=vocabulary",
    )
    balance: float = option(
        0.0,
        "weight of the loss that spreads tokens over experts (arXiv:2101.03961, eq. 4); config.json"
        " calls it router_aux_loss_coef",
        at_least=0,
        read_if="model.experts",
    )
    router_z: float = option(
        0.0,
        "weight of the loss that keeps the scores of their routers small (arXiv:2202.08906, eq. 5)",
        at_least=0,
        read_if="model.experts",
    )
    chunk: Any = option(
        "auto",
        "rows of tokens whose logits are held at once: auto | none | a number",
        words=("auto", "none"),
        what="a number of tokens",
        at_least=1,
        read_if="output=vocabulary",
    )
    penalties: list[Penalty] = option([], "of weights, each with kind, pattern and weight")


@dataclass(frozen=True)
class TrainConfig:
    duration: str = option(
        "3epochs",
        "how long training goes (elsewhere `num_train_epochs`, `max_steps`): 3epochs, 500steps",
        duration=True,
        above=0,
        common="Training",
    )
    batch_size: int = option(8, "rows of a step", at_least=1, common="Training")
    accumulate: int = option(
        1,
        "gradient accumulation: micro-batches that a step is cut into, with the same numbers and"
        " less memory",
        at_least=1,
        common="Training",
    )
    on_nan: str = option(
        "stop",
        "what becomes of a step whose gradient is not finite: stop | skip",
        choices=("stop", "skip"),
    )
    ema: Optional[float] = option(
        None,
        "decay of a moving average of the weights, which is then evaluated and saved; null: none",
        at_least=0,
        below=1,
    )
    neftune: Optional[float] = option(
        None,
        "how strong the noise on the embeddings of training is; 5 to 15 in the paper"
        " (arXiv:2310.05914)",
        above=0,
    )
    freeze: list[str] = option([], "patterns of parameter paths", common="Training")
    backbone: str = option(
        "trained",
        "cached: all below the head is frozen, reads every text once, and what it gives is kept for"
        " all epochs and later runs",
        choices=("trained", "cached"),
        needs={"cached": CACHED},
    )
    backbone_limit: Optional[float] = option(
        None,
        "GiB of such features, of all runs, that the cache keeps: the longest unused go first;"
        " null: all stay",
        above=0,
        read_if="train.backbone=cached",
    )
    unfreeze_every: Optional[str] = option(
        None,
        "a duration: the head trains from the start, then layer after layer from the top, the"
        " embedding last",
        duration=True,
        above=0,
    )
    init_from: Optional[str] = option(
        None, "a run directory (or hub: name) whose weights training starts from", hub="folder"
    )
    init_fresh: list[str] = option(
        [],
        "patterns of parameters that are not taken from it",
        read_if="train.init_from or model.pretrained",
    )
    log_every: str = option(
        "10steps", "a duration: how often the loss is told and written", duration=True, above=0
    )


@dataclass(frozen=True)
class Seeds:
    """Null is the run's `seed`."""

    init: Optional[int] = option(None, "of new weights", at_least=0, below=2**32)
    data: Optional[int] = option(None, "of the order of rows", at_least=0, below=2**32)
    dropout: Optional[int] = option(None, "of dropout and noise", at_least=0, below=2**32)


@dataclass(frozen=True)
class CheckpointConfig:
    every: str = option(
        "1epochs",
        "a duration: how often state and optimizer are saved, so that a killed run goes on",
        duration=True,
        above=0,
    )
    include_base: bool = option(
        False, "copy frozen weights into the checkpoint, instead of naming where they come from"
    )


@dataclass(frozen=True)
class EvaluationConfig:
    every: str = option(
        "1epochs",
        "a duration: how often the validation split is scored",
        duration=True,
        above=0,
        common="Evaluation",
    )
    metric: str = option(
        "auto",
        "which metric chooses the best checkpoint, e.g. validation/loss; auto: the task's",
        common="Evaluation",
    )
    patience: Optional[int] = option(
        None,
        "early stopping: evaluations without improvement before training stops; null: it does not",
        at_least=1,
        common="Evaluation",
    )
    batch_size: Optional[int] = option(None, "rows; null: train.batch_size", at_least=1)
    on_train: bool = option(False, "evaluate the training split too, at the end")
    metrics: list[str] = option([], "further metrics of the predictions, by name, of plug-ins")
    generate: str = option(
        "end",
        "end | always | never: when answers are generated and scored",
        choices=("end", "always", "never"),
    )
    generate_rows: Optional[int] = option(
        512, "generate for the first rows of a split only; null: for all of them", at_least=1
    )


@dataclass(frozen=True)
class GenerateConfig:
    max_new_tokens: Any = option(
        "auto",
        "auto: what the longest reference needs; without references, twice the longest answer of"
        " training",
        words=("auto",),
        what="a number of tokens",
        at_least=1,
    )
    allow_cut: bool = option(
        False,
        "references longer than max_new_tokens count as wrong, instead of being an error",
        read_if="generate.max_new_tokens!=auto",
    )
    allow_long: bool = option(
        False,
        "prompts longer than model.context are continued at rotary positions that training never"
        " saw, instead of being an error",
    )
    temperature: float = option(0.0, "0: greedy", at_least=0, read_if="generate.num_beams=1")
    top_k: Optional[int] = option(
        None, "draw from the k likeliest tokens", at_least=1, read_if="generate.temperature>0"
    )
    top_p: Optional[float] = option(
        None,
        "draw from the likeliest tokens that have this probability together",
        above=0,
        at_most=1,
        read_if="generate.temperature>0",
    )
    min_p: Optional[float] = option(
        None,
        "draw from tokens at least so likely as this times the likeliest",
        above=0,
        at_most=1,
        read_if="generate.temperature>0",
    )
    repetition_penalty: float = option(
        1.0,
        "more than 1: tokens of the prompt and of the answer become less likely; 1: off",
        above=0,
    )
    num_beams: int = option(1, "more than 1: beam search", at_least=1)
    length_penalty: float = option(
        1.0,
        "of beams: the log-probability of an answer is divided by its length to this power",
        at_least=-math.inf,
        read_if="generate.num_beams>1",
    )
    stop: list[str] = option(
        [],
        "texts that end an answer, which is cut there; beside the stop tokens of training",
        matches=r"(?s).+",
        what="texts that are not empty",
    )
    batch_size: int = option(64, "answers that are generated together", at_least=1)


@dataclass(frozen=True)
class CheckConfig:
    """The options of `jaxsft check`, which looks at data and trains nothing."""

    output: Optional[str] = option(None, "a folder for check.json and check.html")
    json: Optional[str] = option(
        None, "a file for the findings as JSON; -: the standard output, instead of the text"
    )
    accept: list[str] = option([], "ids of findings that are known and no error, e.g. leak_near")
    samples: int = option(3, "rows that are shown token by token", at_least=0)
    places: int = option(5, "rows that a finding names", at_least=0)
    near: float = option(
        0.8,
        "the Jaccard similarity from which two texts are near duplicates; 0: near ones are not"
        " looked for",
        at_least=0,
        below=1,
    )


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; one of them may be `auto`: what the others leave of all devices."""

    data: Any = option(
        "auto",
        "rows of a batch are spread over data x fsdp",
        words=("auto",),
        what="a number of devices",
        at_least=1,
    )
    fsdp: Any = option(
        1,
        "weights, gradients and optimizer state are spread over it, and gathered where they are"
        " used",
        words=("auto",),
        what="a number of devices",
        at_least=1,
    )
    tensor: Any = option(
        1,
        "heads, MLP and vocabulary are spread over it",
        words=("auto",),
        what="a number of devices",
        at_least=1,
    )
    show: bool = option(False, "print where every array lies")
    allow_replicated: bool = option(
        False, "a large array that every device holds whole is a note, not an error"
    )


@dataclass(frozen=True)
class HostsConfig:
    """The processes of one run. Null: as a TPU pod or SLURM says, else this process alone."""

    coordinator: Optional[str] = option(None, "host:port of process 0")
    count: Optional[int] = option(None, "processes of the run", at_least=1)
    index: Optional[int] = option(None, "which of them this is, from 0")
    timeout: int = option(
        60, "seconds without a sign of life after which a process is lost", at_least=1
    )
    wait: int = option(
        300, "seconds that the processes wait for each other at the start", at_least=1
    )


@dataclass(frozen=True)
class TrackersConfig:
    """The places where numbers go beside `metrics.jsonl` and TensorBoard, which are always
    written."""

    use: list[str] = option(
        [],
        "wandb | mlflow | trackio; each needs the extra of its name",
        choices=("wandb", "mlflow", "trackio"),
        common="The run",
    )
    project: str = option("jaxsft", "in MLflow the experiment", read_if="trackers.use")
    name: Optional[str] = option(
        None, "of the run; null: the name of its directory", read_if="trackers.use"
    )


@dataclass(frozen=True)
class Config:
    task: TaskConfig = field(default_factory=TaskConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=BytesTokenizer)
    model: ModelConfig = field(default_factory=ModelConfig)
    adapter: AdapterConfig = field(default_factory=NoAdapter)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=AdamW)
    schedule: ScheduleConfig = field(default_factory=Cosine)
    train: TrainConfig = field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    check: CheckConfig = field(default_factory=CheckConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    hosts: HostsConfig = field(default_factory=HostsConfig)
    trackers: TrackersConfig = field(default_factory=TrackersConfig)
    precision: str = option(
        "auto",
        "of activations and products, not of weights; auto: bf16 where the device multiplies it in"
        " hardware, else fp32",
        choices=("auto", "fp32", "bf16"),
        common="The run",
    )
    seed: int = option(
        0,
        "of everything that has no seed of its own in `seeds`",
        at_least=0,
        below=2**32,
        common="The run",
    )
    seeds: Seeds = field(default_factory=Seeds)
    run_dir: Optional[str] = option(
        None,
        "where the run is written; the same command continues it there; null: a new folder in"
        " runs/",
        matches=r"(?s).+",
        what="a folder; or leave the option out",
        common="The run",
    )
    profile: Optional[str] = option(
        None, "steps:10-15 writes a trace of these steps into profile/ of the run directory"
    )
    compilation_cache: str = option(
        "auto",
        "where compiled programs are kept between runs: auto (the user's cache) | none | a folder",
        matches=r"(?s).+",
        what="a folder, auto or none",
    )
    plugins: list[str] = option(
        [],
        "modules, or files, of plug-ins; imported only where the command line or a call names them",
    )
    # No options. What presets came to and nobody asked for, as (name, value); empty: nobody knows,
    # of a config made by hand.
    unasked: tuple[tuple[str, Any], ...] = field(
        default=(), compare=False, repr=False, metadata={"option": False}
    )
    # Of options whose value was chosen for this run (`pretrained_defaults`), where it comes from,
    # as (name, reason).
    origins: tuple[tuple[str, str], ...] = field(
        default=(), compare=False, repr=False, metadata={"option": False}
    )


# --- preparation
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class OutputConfig:
    dir: Optional[str] = option(None, "the folder of the prepared set")
    format: str = option(
        "jsonl", "jsonl | json | csv | tsv | parquet | array_record (in the layout of TFDS)"
    )
    shards: int = option(1, "files per split", at_least=1)
    origin: bool = option(False, "add the column `origin`: file:line of every row")
    overwrite: bool = option(False, "replace another prepared set that stands in the folder")


@dataclass(frozen=True)
class PrepareConfig:
    """The options of `jaxsft prepare`."""

    data: UsedFiles = field(default_factory=UsedFiles)
    stages: list[Any] = option([], "in their order: a name, or {name: {option: value}}")
    output: OutputConfig = field(default_factory=OutputConfig)
    run: Optional[str] = option(
        None, "a run directory, for stages that need a model (`model` is a group of Hydra's)"
    )
    seed: int = option(0, "of what stages draw")
    workers: int = option(1, "processes for the stages that are slow", at_least=1)
    plugins: list[str] = option([], "modules, or files, of plug-ins, as of training")


@dataclass(frozen=True)
class RatingsConfig:
    """Labels of several annotators: columns of the data, one per annotator, or a file with a row
    per item and annotator.
    """

    columns: list[str] = option([], "of the data, one per annotator")
    file: Optional[str] = option(None, "instead of columns")
    item: str = option("id", "of the file: the column that names the item")
    annotator: Optional[str] = option(
        None, "of the file: the column that names the annotator; null: they cannot be told apart"
    )
    values: list[str] = option(
        [], "of the file: the columns that hold a rating, each measured by itself"
    )
    level: str = option("nominal", "nominal | ordinal | interval | ratio")


@dataclass(frozen=True)
class QualityConfig:
    """The options of `jaxsft quality`."""

    data: DataFiles = field(default_factory=DataFiles)
    output: Optional[str] = option(
        None, "a folder; null: quality-NAME, by the name of the first file"
    )
    compare: Optional[str] = option(None, "the card.json of other data, or of these data before")
    split_column: Optional[str] = option(
        None, "the column that names the split of each row; with data.path"
    )
    multilabel: bool = option(False, "a cell holds several labels, between data.columns.separator")
    benchmarks: list[str] = option([], "files whose rows must not be in the data")
    ngram: Any = option(
        13, "words of a run that two texts may not share; auto: the rule of GPT-3, 8 to 13"
    )
    languages: bool = option(
        False, "also the languages of 2000 texts per split; needs jaxsft[text]"
    )
    sample: int = option(
        20_000,
        "rows per split that the measures of diversity look at; a split that is not larger is"
        " measured as a whole",
    )
    clusters: int = option(
        0, "of k-means; 0: the square root of half the number of texts, 50 at most"
    )
    embeddings: Optional[str] = option(
        None, ".npy [rows, size], a row per row of data.path, in place of hashed n-grams"
    )
    ratings: RatingsConfig = field(default_factory=RatingsConfig)
    folds: int = option(0, "of the classifier that looks for wrong labels; 0: it does not")
    listed: int = option(20, "rows shown for each finding; all of them are in findings.jsonl")
    seed: int = option(0, "of the sample, of k-means and of the folds")


GROUPS: dict[str, Mapping[str, type]] = {
    "task": TASKS,
    "tokenizer": {
        cls.kind: cls
        for cls in (
            BytesTokenizer,
            BpeTokenizer,
            CharTokenizer,
            WordTokenizer,
            WordPieceTokenizer,
            UnigramTokenizer,
            PretrainedTokenizer,
        )
    },
    "schedule": plugins.Registry(
        "schedules",
        {
            "constant": Constant,
            "linear": LinearDecay,
            "cosine": Cosine,
            "inverse_sqrt": InverseSqrt,
            "wsd": WSD,
        },
        read=lambda schedule: schedule.options,
    ),
}
