"""How fast metrics are beside the libraries that define them, in one run on the same arrays:
`python -m tools.bench.metrics [--section labels] [--rows 1000000] [--labels 100]`.

Each line says what both sides compute, from arrays in memory to numbers; jaxsft is timed as the
best of `--rounds`, the library once. The two must agree. A ratio above 1: jaxsft is faster; that of
CPU time, of all threads, is the steadier one on a machine with other work.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from jaxsft.metrics.base import Outputs, measure
from jaxsft.metrics.by_name import METRICS

Numbers = Mapping[str, float]
Case = tuple[str, Callable[[], Numbers], Callable[[], Numbers], float]
# what is computed, by jaxsft, by the library, and how far the two may differ


def ours(outputs: Outputs, *names: str) -> Callable[[], Numbers]:
    """Returns what computes the numbers of metrics."""
    return lambda: {k: v for name in names for k, v in measure(METRICS[name], outputs).items()}


def classifier(rows: int, labels: int) -> Outputs:
    """Makes rows of a classifier that is right in about two of three."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, labels, rows)
    logits = rng.standard_normal((rows, labels), np.float32)
    logits[np.arange(rows), label] += 3
    arrays = {"label": label, "predicted": logits.argmax(-1), "logits": logits}
    return Outputs(np.arange(rows), arrays, [f"l{i}" for i in range(labels)])


def labels(args: argparse.Namespace) -> Iterator[Case]:
    """Yields what a confusion matrix gives."""
    from sklearn import metrics as sklearn

    outputs = classifier(args.rows, args.labels)
    gold, predicted = outputs["label"], outputs["predicted"]
    averages = ("macro", "micro", "weighted")

    def scores() -> Numbers:
        out = {"accuracy": sklearn.accuracy_score(gold, predicted)}
        for average in averages:
            found = sklearn.precision_recall_fscore_support(
                gold, predicted, average=average, zero_division=0
            )[:3]
            names = (f"{m}_{average}" for m in ("precision", "recall", "f1"))
            out |= dict(zip(names, found, strict=True))
        return out

    yield "label_scores", ours(outputs, "label_scores"), scores, 1e-9
    of = lambda name, score, **options: {
        f"{name}_{a}": score(gold, predicted, average=a, zero_division=0, **options)
        for a in averages
    }
    betas = lambda: {
        k: v for beta in (0.5, 2) for k, v in of(f"f{beta}", sklearn.fbeta_score, beta=beta).items()
    }
    yield "f_beta", ours(outputs, "f_beta"), betas, 1e-9
    yield "jaccard", ours(outputs, "jaccard"), lambda: of("jaccard", sklearn.jaccard_score), 1e-9
    balanced = lambda: {"balanced_accuracy": sklearn.balanced_accuracy_score(gold, predicted)}
    yield "balanced_accuracy", ours(outputs, "recall_means"), balanced, 1e-9
    mcc = lambda: {"mcc": sklearn.matthews_corrcoef(gold, predicted)}
    yield "mcc", ours(outputs, "mcc"), mcc, 1e-9
    kappas = lambda: {
        f"cohen_kappa{name}": sklearn.cohen_kappa_score(gold, predicted, weights=weights)
        for name, weights in (("", None), ("_linear", "linear"), ("_quadratic", "quadratic"))
    }
    yield "cohen_kappa", ours(outputs, "cohen_kappa"), kappas, 1e-9


def probabilities(args: argparse.Namespace) -> Iterator[Case]:
    """Yields what logits give; the library takes probabilities, which are made of them first."""
    from scipy.special import softmax
    from sklearn import calibration, preprocessing
    from sklearn import metrics as sklearn

    outputs = classifier(args.rows, args.labels)
    gold, every = outputs["label"], np.arange(args.labels)
    p = lambda: softmax(outputs["logits"], -1)
    loss = lambda: {"log_loss": sklearn.log_loss(gold, p(), labels=every)}
    yield "log_loss", ours(outputs, "log_loss"), loss, 1e-6
    brier = lambda: {
        "brier_score": sklearn.brier_score_loss(gold, p(), labels=every, scale_by_half=False)
    }
    yield "brier_score", ours(outputs, "brier_score"), brier, 1e-6
    top = lambda: {
        f"top_{k}_accuracy": sklearn.top_k_accuracy_score(
            gold, outputs["logits"], k=k, labels=every
        )
        for k in (3, 5)
    }
    yield "top_k_accuracy", ours(outputs, "top_k_accuracy"), top, 1e-9

    def ece() -> Numbers:  # scikit-learn has the curve only
        found = p()
        confidence, hit = found.max(-1), found.argmax(-1) == gold
        accuracy, mean = calibration.calibration_curve(hit, confidence, n_bins=15)
        rows = np.histogram(confidence, 15, (0, 1))[0]
        return {"ece_15_equal_width": rows[rows > 0] / len(gold) @ abs(accuracy - mean)}

    yield "ece", ours(outputs, "calibration_equal_width"), ece, 1e-5
    for name, suffix, tolerance in (("auroc_ovr", "", 1e-6), ("auroc_binned", "_binned_256", 1e-3)):
        area = lambda suffix=suffix: {
            f"auroc_ovr_macro{suffix}": sklearn.roc_auc_score(gold, p(), multi_class="ovr")
        }
        yield name, ours(outputs, name), area, tolerance
    one_hot = preprocessing.label_binarize(gold, classes=every)
    precision = lambda: {
        "average_precision_ovr_macro": sklearn.average_precision_score(one_hot, p())
    }
    yield "average_precision", ours(outputs, "average_precision_ovr"), precision, 1e-6


def pairs(args: argparse.Namespace) -> Iterator[Case]:
    """Yields AUROC of each label against each other, of which there are many pairs."""
    from scipy.special import softmax
    from sklearn import metrics as sklearn

    outputs = classifier(args.rows, args.labels)
    p = lambda: softmax(outputs["logits"], -1)
    area = lambda: {
        "auroc_ovo_macro": sklearn.roc_auc_score(outputs["label"], p(), multi_class="ovo")
    }
    yield "auroc_ovo", ours(outputs, "auroc_ovo"), area, 1e-6


def sets(args: argparse.Namespace) -> Iterator[Case]:
    """Yields what any number of labels a row gives."""
    from sklearn import metrics as sklearn

    rng = np.random.default_rng(1)
    shape = (args.rows // 10, args.labels)
    gold = rng.random(shape) < 0.05
    logits = rng.standard_normal(shape, np.float32) + gold
    names = [f"l{i}" for i in range(args.labels)]
    outputs = Outputs(np.arange(shape[0]), {"labels": gold, "logits": logits}, names)
    ranking = lambda: {
        "lrap": sklearn.label_ranking_average_precision_score(gold, logits),
        "coverage_error": sklearn.coverage_error(gold, logits),
        "label_ranking_loss": sklearn.label_ranking_loss(gold, logits),
    }
    yield "label_ranking (a tenth)", ours(outputs, "label_ranking"), ranking, 1e-9
    areas = lambda: {
        f"{name}_{average}": score(gold, logits, average=average)
        for name, score in (
            ("auroc", sklearn.roc_auc_score),
            ("average_precision", sklearn.average_precision_score),
        )
        for average in ("macro", "micro")
    }
    yield "label_areas (a tenth)", ours(outputs, "label_areas"), areas, 1e-6


def numbers(args: argparse.Namespace) -> Iterator[Case]:
    """Yields scores of numbers."""
    from scipy import stats
    from sklearn import metrics as sklearn

    rng = np.random.default_rng(2)
    gold = rng.normal(size=args.rows)
    predicted = gold + rng.normal(size=args.rows)
    outputs = Outputs(np.arange(args.rows), {"targets": gold, "predictions": predicted}, ["a"])
    tau = lambda: {"kendall_tau_b": stats.kendalltau(gold, predicted).statistic}
    yield "kendall", ours(outputs, "kendall"), tau, 1e-9
    errors = lambda: {
        **{f"pinball_{q}": sklearn.mean_pinball_loss(gold, predicted, alpha=q) for q in (0.1, 0.9)},
        "max_error": sklearn.max_error(gold, predicted),
        "median_absolute_error": sklearn.median_absolute_error(gold, predicted),
        "explained_variance": sklearn.explained_variance_score(gold, predicted),
    }
    yield "number_errors", ours(outputs, "number_errors"), errors, 1e-9


def entities(args: argparse.Namespace) -> Iterator[Case]:
    """Yields chunks of tagged words; both sides begin with what they read, numbers or tags."""
    from seqeval.metrics import v1 as seqeval
    from seqeval.scheme import IOB2

    rng = np.random.default_rng(3)
    tags = ["O", *(f"{p}-{t}" for t in ("LOC", "MISC", "ORG", "PER") for p in "BI")]
    row = np.arange(args.rows) // 20
    gold = np.where(rng.random(args.rows) < 0.7, 0, rng.integers(1, len(tags), args.rows))
    predicted = np.where(rng.random(args.rows) < 0.9, gold, rng.integers(0, len(tags), args.rows))
    arrays = {"word.row": row, "word.tag": gold, "word.predicted": predicted}
    outputs = Outputs(np.arange(row[-1] + 1), arrays, tags, "bio")
    texts = [
        [[tags[i] for i in x[start : start + 20]] for start in range(0, args.rows, 20)]
        for x in (gold, predicted)
    ]

    def scores() -> Numbers:
        out = {}
        for average in ("macro", "micro", "weighted"):
            found = seqeval.precision_recall_fscore_support(
                *texts, average=average, scheme=IOB2, zero_division=0
            )[:3]
            names = (f"{m}_{average}" for m in ("precision", "recall", "f1"))
            out |= dict(zip(names, found, strict=True))
        return out

    yield "chunk_scores", ours(outputs, "chunk_scores"), scores, 1e-9


SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[Case]]] = {
    "labels": labels,
    "probabilities": probabilities,
    "entities": entities,
    "sets": sets,
    "numbers": numbers,
    "pairs": pairs,
}
USUAL = ("labels", "probabilities", "entities")  # the others take the libraries many minutes


def timed(work: Callable[[], Numbers], rounds: int = 1) -> tuple[float, float, Numbers]:
    """Returns the shortest time and CPU time of some rounds, and the numbers."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        start = time.perf_counter(), time.process_time()
        found = work()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, cpu = (min(x) for x in zip(*times, strict=True))
    return wall, cpu, found


def run(case: Case, rounds: int) -> None:
    """Prints a line of the table. Raises ValueError where the two sides differ."""
    name, mine, theirs, tolerance = case
    own, own_cpu, found = timed(mine, rounds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library, library_cpu, expected = timed(theirs)
    for number, value in expected.items():
        if not abs(found[number] - value) <= tolerance:
            raise ValueError(f"{number}: jaxsft {found[number]}, the library {value}")
    ratios = f"{library / own:.1f} | {library_cpu / max(own_cpu, 1e-9):.1f}"
    print(f"| {name} | {own:.3f} | {library:.3f} | {ratios} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--section", action="append", choices=SECTIONS, help="one or more")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{args.rows} rows (or words), {args.labels} labels\n")
    print("| metric | jaxsft, s | library, s | ratio | of CPU time |\n|---|---|---|---|---|")
    for section in args.section or USUAL:
        for case in SECTIONS[section](args):
            run(case, args.rounds)


if __name__ == "__main__":
    main()
