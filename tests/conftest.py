"""What all tests share: eight virtual CPU devices, caches away from the user's, and a small bench
of real parts (`bench`).
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

from tests import xla

# Before anything imports jax.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = xla.flags(8, os.environ.get("XLA_FLAGS", ""))
# Programs are kept between sessions of one user; what is compiled in less than a quarter of a
# second is not worth its file.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(tempfile.gettempdir()) / f"jaxsft-tests-{os.getuid()}" / "programs"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.25")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
_CACHE_HOME = tempfile.mkdtemp(prefix="jaxsft-tests-cache-")
os.environ["XDG_CACHE_HOME"] = _CACHE_HOME
# as a shell has it for what runs in the background; what the tests start would inherit it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import dataclasses  # noqa: E402
import functools  # noqa: E402
import gc  # noqa: E402
import math  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from typing import Any  # noqa: E402

import hypothesis  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from jaxsft import progress, tasks  # noqa: E402
from jaxsft.compat import enable_x64  # noqa: E402
from jaxsft.config import adapters, schema  # noqa: E402
from jaxsft.config import optim as optim_config  # noqa: E402
from jaxsft.config.durations import Clock  # noqa: E402
from jaxsft.data.pipeline import Batch, Batches  # noqa: E402
from jaxsft.data.records import (  # noqa: E402
    Chat,
    LabelledText,
    Message,
    MultiLabel,
    Pair,
    Parse,
    Regression,
    Seq2Seq,
    Slots,
    Tags,
    Text,
)
from jaxsft.data.tokenizers.tokenizer import Tokenizer  # noqa: E402
from jaxsft.reports import figures  # noqa: E402
from jaxsft.sharding import mesh as meshes  # noqa: E402
from jaxsft.training import partition, runs, setup  # noqa: E402
from jaxsft.training.components import Components, build_components  # noqa: E402
from jaxsft.training.hyper import make_hyper  # noqa: E402

progress.AFTER = 600.0  # no line of a stage beside what a test expects, however slow the machine is
# a machine that is shared is slow at times
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
ROOT = Path(__file__).parent
_write_figures = figures.write_figures
LABELS = ("bad", "fair", "good")
TASKS = {"chat": schema.ChatTask, "lm": schema.LMTask, "classify": schema.ClassifyTask}
TASKS |= {"seq2seq": functools.partial(schema.Seq2SeqTask, scores=["exact_match"])}
TASKS |= {
    "multilabel": schema.MultiLabelTask,
    "regress": schema.RegressTask,
    "pair": schema.PairTask,
    "span": schema.SpanTask,
    "tag": schema.TagTask,
    "joint": schema.JointTask,
    "parse": schema.ParseTask,
}
SCHEDULES = schema.GROUPS["schedule"]


# What `make test` runs: the trust suite, and of each room the files that would fail first. The rest
# is for `.ci/run`.
HEART = """
invariants losses metrics test_cli.py test_patterns.py test_recipes.py test_rundir.py
test_runlock.py config/test_compose.py config/test_option.py config/test_pretrained_defaults.py
config/test_resolve.py config/test_validate.py
data/test_encode.py data/test_packing_plan.py data/test_split_rule.py data/chat/test_templates.py
data/tokenizers/test_tokenizer.py data/test_word_tokens.py
data/formats/test_common.py data/formats/test_dialect.py data/records
models/test_attention.py models/test_heads.py models/test_layers.py models/test_rope.py
generation/test_sampling.py models/test_transformer.py
models/adapters/test_low_rank.py hf/families/test_parity.py
optim/test_schedules.py check prepare/test_run.py prepare/test_training.py
reports/test_markdown_report.py sharding/test_mesh.py
tasks/test_tag.py tasks/test_span.py training/test_checkpoint.py training/test_runs.py
"""


def short(values: Sequence[Any], *often: Any) -> list[Any]:
    """Parameters of a test, of which `make test` runs those that are named last, and `.ci/run`
    all."""
    assert not (gone := [one for one in often if one not in values]), gone
    of = lambda one: one if isinstance(one, tuple) else (one,)
    return [v if v in often else pytest.param(*of(v), marks=pytest.mark.slow) for v in values]


# Files that take the longest come first, so that no worker is left alone with one of them at the
# end; the Makefile keeps this order.
FIRST = """
sharding/test_hosts.py invariants/test_resume.py invariants/test_step.py invariants/test_config.py
models/adapters/test_in_models.py test_remote.py invariants/test_words.py docs/test_pages.py
invariants/test_texts.py test_api.py test_cli.py
"""
# Where the pictures of a run are looked at. Elsewhere none is drawn in the tests' own process: they
# are most of the time of a tiny training.
DRAWN = "reports evaluation/test_explain.py"
BUDGET = 60  # seconds that a file may take on two cores of a fast machine


@functools.cache
def _of_heart(path: Path) -> bool:
    return any(path.is_relative_to(ROOT / place) for place in HEART.split())


def pytest_ignore_collect(collection_path, config):
    """A file of which `make test` runs nothing is not imported for it."""
    heart = (config.option.markexpr or "").startswith("heart")
    ignored = heart and collection_path.suffix == ".py" and not _of_heart(collection_path)
    return True if ignored else None  # None: as pytest decides


def pytest_collection_modifyitems(items):
    """Marks what `make test` runs, and puts the longest files first."""
    places, first = ([ROOT / place for place in listed.split()] for listed in (HEART, FIRST))
    drawn = [ROOT / place for place in DRAWN.split()]
    missing = [str(place) for place in (*places, *first, *drawn) if not place.exists()]
    assert not missing, f"HEART, FIRST or DRAWN names what is no more: {missing}"
    for item in items:
        if _of_heart(item.path):
            item.add_marker("heart")
    rank = {place: i for i, place in enumerate(first)}
    items.sort(key=lambda item: rank.get(item.path, len(first)))


def pytest_runtest_setup(item):
    """Draws the pictures of runs, or does not, before any fixture of the test trains one."""
    drawn = any(item.path.is_relative_to(ROOT / place) for place in DRAWN.split())
    figures.write_figures = _write_figures if drawn else lambda run_dir: []


def pytest_terminal_summary(terminalreporter):
    """The files that took the longest, set-up and tear-down included, and which are above their
    budget; nothing is asserted of time.
    """
    seconds: dict[str, float] = {}
    for report in (
        r
        for reports in terminalreporter.stats.values()
        for r in reports
        if isinstance(r, pytest.TestReport)
    ):
        file = report.nodeid.partition("::")[0]
        seconds[file] = seconds.get(file, 0.0) + report.duration
    if len(seconds) > 1:
        terminalreporter.section(
            f"slowest files of {len(seconds)}, {sum(seconds.values()):.0f} s of all workers"
        )
        for file in sorted(seconds, key=seconds.get, reverse=True)[:10]:
            over = f"  over its budget of {BUDGET} s" if seconds[file] > BUDGET else ""
            terminalreporter.write_line(f"{seconds[file]:8.1f} s  {file}{over}")


def pytest_unconfigure(config):
    shutil.rmtree(_CACHE_HOME, ignore_errors=True)


def pytest_runtest_teardown(item, nextitem):
    """Compiled programs are dropped between files, before they use up the mappings that the kernel
    grants a process.

    Each program on CPU holds several mappings as long as its function lives; a worker that runs
    half of the suite reaches the 65,530 of `vm.max_map_count`, and from there on the compiler
    crashes or waits for ever. Dropped when a third is used.
    """
    if (nextitem is None or nextitem.path != item.path) and _mappings() > 20_000:
        jax.clear_caches()
        gc.collect()


def _mappings() -> int:
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:  # not Linux
        return 0


@pytest.fixture
def x64():
    with enable_x64():
        yield


# --- small parts
# --------------------------------------------------------------------------------------------------
def make_config(
    name: str = "chat",
    /,
    *,
    precision: str = "fp32",
    seed: int = 0,
    schedule: Any = None,
    optim: Any = None,
    adapter: Any = None,
    **groups: dict,
) -> schema.Config:
    """A resolved config of a model with two layers; each group is a dict of what differs:
    `model={"dropout": 0.1}`. Plain SGD, constant rate.
    """
    options = {
        "task": {},
        "data": {},
        "model": {},
        "loss": {},
        "train": {},
        "mesh": {},
        "evaluation": {},
        "seeds": {},
        "generate": {},
        "prune": {},
    } | groups
    model = {
        "layers": 2,
        "embed": 16,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 4,
        "mlp": 24,
        "context": 64,
        "causal": name in ("chat", "lm", "seq2seq"),
    }
    columns = {"columns": schema.Columns(targets=("x", "y"))} if name == "regress" else {}
    return setup.resolve(
        schema.Config(
            task=TASKS[name](**options["task"]),
            data=schema.DataConfig(
                **({"train": "rows.jsonl", "validation": "rows.jsonl"} | columns | options["data"])
            ),
            model=schema.ModelConfig(**(model | options["model"])),
            loss=schema.LossConfig(**options["loss"]),
            adapter=adapter or adapters.NoAdapter(),
            optim=optim
            or optim_config.OPTIMIZERS["sgd"](learning_rate=0.5, momentum=0.0, clip_norm=None),
            schedule=schedule or schema.SCHEDULES["constant"](warmup="0steps"),
            train=schema.TrainConfig(**options["train"]),
            mesh=schema.MeshConfig(**({"data": 1} | options["mesh"])),
            evaluation=schema.EvaluationConfig(**options["evaluation"]),
            seeds=schema.Seeds(**options["seeds"]),
            generate=schema.GenerateConfig(**options["generate"]),
            prune=schema.PruneConfig(**options["prune"]),
            precision=precision,
            seed=seed,
        )
    )


def make_records(
    task: str, rows: int, seed: int = 0, shortest: int = 1, longest: int = 40
) -> tuple[list[Any], list[str]]:
    """Ragged rows of letters, and where they are. Chats have one or two trained turns of different
    weights, whose float32 sums are exact.
    """
    rng = np.random.default_rng([seed, rows])

    if task in ("tag", "joint", "parse"):
        return word_records(task, rows, rng, longest // 4), [
            f"rows.jsonl:{i + 1}" for i in range(rows)
        ]

    def text(n: int) -> str:
        return "".join(chr(c) for c in rng.integers(97, 123, n))

    records: list[Any] = []
    for i in range(rows):
        n = int(rng.integers(shortest, longest + 1))
        if task == "chat":
            first = (
                Message("user", text(n // 4)),
                Message("assistant", text(n // 4), float(rng.choice([0.0, 0.5, 2.0]))),
            )
            last = (
                Message("user", text(n // 4 + 1)),
                Message("assistant", text(n // 4), float(rng.choice([0.25, 1.0, 1.75]))),
            )
            records.append(Chat((*first, *last) if i % 3 else last))
        elif task == "lm":
            records.append(Text(text(n)))
        elif task == "seq2seq":
            records.append(
                Seq2Seq(
                    text(n), text(max(n * 2 // 3, 1)), weight=float(rng.choice([0.25, 1.0, 1.75]))
                )
            )
        elif task == "multilabel":
            records.append(
                MultiLabel(
                    text(n),
                    None,
                    tuple(label for k, label in enumerate(LABELS) if (i + 1) >> k & 1),
                )
            )
        elif task == "regress":  # every third row lacks the first target
            records.append(
                Regression(
                    text(n),
                    None,
                    (math.nan if i % 3 == 1 else float(np.float32(rng.normal(3, 2))), float(i)),
                )
            )
        elif task == "pair":
            records.append(Pair(text(max(n // 2, 1)), text(n // 3 + 1), LABELS[i % len(LABELS)]))
        else:
            records.append(LabelledText(text(n), None, LABELS[i % len(LABELS)]))
    return records, [f"rows.jsonl:{i + 1}" for i in range(rows)]


def word_records(task: str, rows: int, rng: np.random.Generator, longest: int) -> list[Any]:
    """Sentences of one to `longest` words of one to four letters, some of them glued; the tags are
    IOB2, the trees drawn at random.
    """
    records: list[Any] = []
    for i in range(rows):
        n = int(rng.integers(1, longest + 1))
        tokens = tuple(
            "".join(chr(c) for c in rng.integers(97, 123, rng.integers(1, 5))) for _ in range(n)
        )
        glued = tuple(j for j in range(1, n) if rng.random() < 0.2)
        if task != "parse":
            tags = [str(rng.choice(["O", "O", "B-X", "B-Y"])) for _ in range(n)]
            for j in range(1, n):
                if tags[j - 1] != "O" and rng.random() < 0.5:
                    tags[j] = f"I-{tags[j - 1][2:]}"
            tags = ["B-X", "I-X", "O", "B-Y", "I-Y"][:n] if i == 0 else tags  # one of each
            about = (
                tokens[: len(tags)],
                tuple(tags),
                "iob2",
                tuple(j for j in glued if j < len(tags)),
            )
            records.append(
                Tags(*about) if task == "tag" else Slots(*about, LABELS[i % len(LABELS)])
            )
            continue
        order, heads = rng.permutation(n) + 1, [0] * n
        for k in range(1, n):
            heads[order[k] - 1] = int(order[rng.integers(k)])
        relations = tuple("root" if h == 0 else str(rng.choice(["dep", "mod"])) for h in heads)
        records.append(
            Parse(
                tokens,
                tuple(heads),
                relations,
                {"upos": tuple(str(t) for t in rng.choice(["N", "V", "PUNCT"], n))},
                glued,
            )
        )
    return records


@dataclasses.dataclass(frozen=True)
class Bench:
    """Everything that a step takes, from `build_components`. Parameters are float64 where 64-bit
    types are on.
    """

    config: schema.Config
    parts: Components
    batches: Batches
    params: Any

    @property
    def program(self):
        return self.parts.program

    @functools.cached_property
    def apart(self) -> tuple[Any, Any]:
        """(trainable, frozen)."""
        return partition.partition(
            self.params, self.parts.specs, self.config.train.freeze, self.config.adapter
        )

    @functools.cached_property
    def hyper(self) -> dict[str, Any]:
        return make_hyper(self.config, Clock(len(self.batches), self.batches.split.examples, 10))

    def state(self, trainable: Any = None) -> Any:
        return self.program.init_state(self.apart[0] if trainable is None else trainable)

    @functools.cached_property
    def step(self):
        """The compiled step, sharded as the training loop does it where the mesh has several
        devices.
        """
        if self.parts.mesh.size == 1:
            return jax.jit(self.program.step)
        shardings = self.parts.state_shardings(jax.eval_shape(self.state))
        return jax.jit(
            self.program.step, out_shardings=(shardings, meshes.replicated(self.parts.mesh))
        )

    @functools.cached_property
    def evaluate(self):
        return jax.jit(self.program.evaluate)

    def run(
        self, steps: int | Sequence[int] = 1, state: Any = None, **hyper: Any
    ) -> tuple[Any, Any]:
        """(state, the last step's sums) after steps from the start; `hyper` replaces traced
        values."""
        state, sums = self.state() if state is None else state, None
        for k in range(steps) if isinstance(steps, int) else steps:
            state, sums = self.step(
                state, self.apart[1], self.put(self.batches[k]), self.hyper | hyper
            )
        return state, sums

    def put(self, batch: Batch) -> Batch:
        return (
            batch
            if self.parts.mesh.size == 1
            else jax.device_put(batch, meshes.rows(self.parts.mesh))
        )


@functools.cache
def _tokenizer() -> Tokenizer:
    return Tokenizer.bytes()


def bench(
    name: str = "chat",
    rows: int = 13,
    /,
    *,
    records: tuple[list, list] | None = None,
    longest: int = 40,
    config: schema.Config | None = None,
    **groups: Any,
) -> Bench:
    """The parts of a run on generated rows. With `config`, which stands for what `make_config`
    gives, no weights are made.
    """
    given, kind, tokenizer = config or make_config(name, **groups), tasks.get(name), _tokenizer()
    records = records or make_records(name, rows, longest=longest)
    parts = build_components(given, tokenizer, kind.fit(given, tokenizer, *records))
    batches = parts.batches(parts.split("train", records), training=True)
    return Bench(given, parts, batches, fresh_params(parts) if config is None else None)


def fresh_params(parts: Components) -> Any:
    """The weights that a run starts from."""
    params = parts.init_params()
    if jax.config.jax_enable_x64:
        params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    return runs.started(parts, params)


def assert_close(a: Any, b: Any, rtol: float = 0.0, atol: float = 1e-12) -> None:
    """Two trees of the same structure and values."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for path, x in jax.tree_util.tree_flatten_with_path(a)[0]:
        y = functools.reduce(
            lambda t, k: (
                t[getattr(k, "key", getattr(k, "idx", None))]
                if hasattr(k, "key") or hasattr(k, "idx")
                else getattr(t, k.name)
            ),
            path,
            b,
        )
        np.testing.assert_allclose(
            np.asarray(x), np.asarray(y), rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path)
        )


def assert_same(a: Any, b: Any) -> None:
    """Two trees that are equal to the bit (NaN equals NaN)."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def distance(a: Any, b: Any) -> float:
    """The largest difference anywhere in two trees."""
    return max(
        float(jnp.abs(x - y).max())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
