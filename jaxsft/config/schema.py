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
from jaxsft.config.crossval_options import CrossvalConfig
from jaxsft.config.data_options import (  # noqa: F401
    Columns,
    DataConfig,
    DataFiles,
    Mixture,
    MixtureSource,
    UsedFiles,
)
from jaxsft.config.distil_options import DistilConfig
from jaxsft.config.model import ModelConfig
from jaxsft.config.optim import OPTIMIZERS, OptimConfig
from jaxsft.config.option import Trace, option
from jaxsft.config.plan_options import PlanConfig
from jaxsft.config.prepare_options import (  # noqa: F401
    OutputConfig,
    PrepareConfig,
    QualityConfig,
    RatingsConfig,
)
from jaxsft.config.prune_options import PruneConfig
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
from jaxsft.config.until import PATTERN as UNTIL

SMOOTHED = "output=vocabulary or output=words and task.crf!=true or reads=label_smoothing"
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


# --- schedule
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ScheduleConfig:
    name: str = "???"
    warmup: str = option(
        "5%",
        "a duration in which the rate rises from 0 to its peak",
        duration=True,
        traced=Trace(kind="steps"),
        common="Training",
    )


SCHEDULES = plugins.OfTable("schedules", "options")  # the class of options of each schedule


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
        traced=Trace(),
        elsewhere=("label_smoothing_factor", "0.1"),
        regularises="label smoothing",
    )
    z_loss: float = option(
        0.0,
        "weight of the squared logarithm of the softmax's denominator",
        at_least=0,
        read_if="output=vocabulary",
        traced=Trace(when="term"),
    )
    unlikelihood: float = option(
        0.0,
        "weight of the loss of words that stood in the same answer before (arXiv:1908.04319, eq. 4"
        " and 5)",
        at_least=0,
        read_if="answer=answer|target|continuation",
        traced=Trace(when="term"),
    )
    balance: float = option(
        0.0,
        "weight of the loss that spreads tokens over experts (arXiv:2101.03961, eq. 4); config.json"
        " calls it router_aux_loss_coef",
        at_least=0,
        read_if="model.experts",
        traced=Trace(when="above 0"),
    )
    router_z: float = option(
        0.0,
        "weight of the loss that keeps the scores of their routers small (arXiv:2202.08906, eq. 5)",
        at_least=0,
        read_if="model.experts",
        traced=Trace(when="above 0"),
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
        traced=Trace("total", kind="total_steps"),
    )
    until: Optional[str] = option(
        None,
        "training ends at the first evaluation for which this holds, as 'validation/f1>=0.9'; null:"
        " at the end of `duration`",
        matches=UNTIL,
        what="validation/NAME>=NUMBER, with >=, <=, > or <",
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
        traced=Trace(when="set"),
    )
    neftune: Optional[float] = option(
        None,
        "how strong the noise on the embeddings of training is; 5 to 15 in the paper"
        " (arXiv:2310.05914)",
        above=0,
        traced=Trace(when="set"),
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
        traced=Trace(when="set", kind="whole_steps"),
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
    dropout: Optional[int] = option(
        None,
        "of dropout and noise",
        at_least=0,
        below=2**32,
        traced=Trace("dropout_seed", when="random", kind="seed"),
    )


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
    dynamics: bool = option(
        False,
        "at every evaluation keep what the model thinks of each training row: figures/dynamics.json"
        " and a map of the rows",
        read_if="answer=label",
    )
    metrics: list[str] = option([], "further metrics, by name: of jaxsft or of plug-ins")
    replicates: int = option(
        1000, "of the bootstrap that gives each number its bounds; 0: there are none", at_least=0
    )
    level: float = option(
        0.95,
        "how often the bounds of a number hold what is true",
        above=0,
        below=1,
        read_if="evaluation.replicates>0",
    )
    slices: list[str] = option(
        [],
        "further numbers, with bounds, of rows that are alike: columns, `length`, or a YAML file of"
        " rules",
    )
    probabilities: bool = option(
        False, "predictions name the probability of every label", read_if="answer=label"
    )
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


AXES = ("data", "fsdp", "context", "tensor")  # of the mesh, from the slowest wires to the fastest


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
    context: Any = option(
        1,
        "the tokens of a row are spread over it, for rows too long for one device",
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
    optim: OptimConfig = field(default_factory=lambda: OPTIMIZERS["adamw"]())
    schedule: ScheduleConfig = field(default_factory=lambda: SCHEDULES["cosine"]())
    train: TrainConfig = field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    check: CheckConfig = field(default_factory=CheckConfig)
    crossval: CrossvalConfig = field(default_factory=CrossvalConfig)
    prune: PruneConfig = field(default_factory=PruneConfig)
    distil: DistilConfig = field(default_factory=DistilConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
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
    "schedule": SCHEDULES,
}
