"""Every number of a card by name: what it is, its source, and which direction is better."""

from __future__ import annotations

import dataclasses

from jaxsft.prepare.quality import noise


@dataclasses.dataclass(frozen=True)
class Measure:
    """The definition of a measure.

    `better`: "lower", "higher", or "" where neither is better. `share`: of 1, shown in percent.
    `source`: empty for a plain count.
    """

    says: str
    source: str = ""
    better: str = ""
    share: bool = False


GOPHER = "Rae et al. 2021 (Gopher), appendix A.1"
LENGTH = "mean, and quantiles by linear interpolation"
_length = {
    f"{what}_{key}": Measure(f"{said} per row: {key}", LENGTH)
    for what, said in (
        ("characters", "characters"),
        ("words", "words"),
        ("label", "label (a quantity)"),
    )
    for key in ("min", "p5", "p25", "median", "p75", "p95", "max", "mean")
}
_drift_words = (
    "large from PSI 0.25 or an effect of 0.3 on, moderate from 0.1 on, otherwise small; the larger"
    " of both"
)
_drift = {}
for _what in ("characters", "words", "label"):
    _drift |= {
        f"{_what}_ks": Measure(
            f"{_what}: largest distance of the two distribution functions, 0 to 1",
            "Smirnov 1939 (two-sample KS)",
            "lower",
        ),
        f"{_what}_ks_p": Measure(
            f"{_what}: asymptotic p-value of KS; with many rows it says that they are many",
            "scipy.stats.kstwobign",
        ),
        f"{_what}_psi": Measure(
            f"{_what}: population stability index over deciles of the reference",
            "Siddiqi 2006; Jeffreys 1946",
            "lower",
        ),
        f"{_what}_drift": Measure(
            f"{_what}: {_drift_words}", "conventions: Siddiqi 2006, Cohen 1988"
        ),
    }
for _what in ("script", "language", "class", "cluster"):
    _drift |= {
        f"{_what}_cramers_v": Measure(
            f"{_what}: Cramér's V, 0 where the shares are equal, 1 where none is in both",
            "Cramér 1946",
            "lower",
        ),
        f"{_what}_chi_square": Measure(f"{_what}: chi-square of homogeneity", "Pearson 1900"),
        f"{_what}_freedom": Measure(f"{_what}: degrees of freedom of chi-square"),
        f"{_what}_p": Measure(f"{_what}: p-value of chi-square", "scipy.stats.chi2"),
        f"{_what}_cells_below_5": Measure(
            f"{_what}: share of cells that expect fewer than 5 rows; p is not to be trusted above"
            " 20 %",
            "Cochran 1954",
            "",
            True,
        ),
        f"{_what}_psi": Measure(
            f"{_what}: population stability index", "Siddiqi 2006; Jeffreys 1946", "lower"
        ),
        f"{_what}_drift": Measure(
            f"{_what}: {_drift_words}", "conventions: Siddiqi 2006, Cohen 1988"
        ),
    }

MEASURES: dict[str, Measure] = {
    # completeness
    "rows": Measure("rows that were read"),
    "unreadable_rows": Measure(
        "rows that could not be read, and are in no other number (data.on_bad_row=quarantine)",
        "",
        "lower",
    ),
    "missing_cells": Measure(
        "cells that are absent, null, empty or NaN, of rows times columns", "", "lower", True
    ),
    "complete_rows": Measure("rows in which every column holds something", "", "higher", True),
    "rows_without_text": Measure("rows whose text is empty or white space", "", "lower"),
    "rows_without_label": Measure(
        "rows whose label is absent, empty, or NA, nan, null, none", "", "lower"
    ),
    # consistency
    "conflicting_rows": Measure(
        "rows whose text (NFKC, case-folded, white space collapsed) occurs with other labels too,"
        " in any split",
        "",
        "lower",
        True,
    ),
    "type_violations": Measure(
        "rows with a cell whose type is not that of its column, over all rows; a column of text"
        " that is at least 95 % numeric is one of numbers",
        "",
        "lower",
    ),
    "damaged_rows": Measure(
        "rows with a replacement character, mojibake, a control or private-use character, a lone"
        " surrogate or an HTML entity",
        "",
        "lower",
        True,
    ),
    "label_variants": Measure(
        "labels that differ from a more frequent one in case, white space, _ and - only",
        "",
        "lower",
    ),
    # diversity
    "sampled_rows": Measure(
        "rows that the measures of diversity look at: all, or `sample` of them drawn by a hash"
    ),
    "repeated_rows": Measure(
        "rows whose text (as for conflicting rows) stood in the split before", "", "lower", True
    ),
    "vocabulary": Measure("different words of the sample (types)"),
    "words": Measure("words of the sample (tokens)"),
    "type_token_ratio": Measure(
        "types divided by tokens; falls with length", "Johnson 1944", "higher"
    ),
    "hapax": Measure("types that occur once, of all types", "", "", True),
    "distinct_1": Measure(
        "different words divided by all words; falls with length", "Li et al. 2016", "higher"
    ),
    "distinct_2": Measure(
        "different pairs of words divided by all pairs; falls with length",
        "Li et al. 2016",
        "higher",
    ),
    "distinct_3": Measure(
        "different runs of three words divided by all; falls with length",
        "Li et al. 2016",
        "higher",
    ),
    "mtld": Measure(
        "mean number of words in a row that keep types/tokens above 0.72; does not depend on"
        " length",
        "McCarthy and Jarvis 2010",
        "higher",
    ),
    "mattr": Measure(
        "mean types/tokens over all windows of 500 words; does not depend on length",
        "Covington and McFall 2010",
        "higher",
    ),
    "heaps_k": Measure("K of Heaps' law V(n) = K n^beta", "Heaps 1978"),
    "heaps_beta": Measure(
        "beta of Heaps' law: how fast the vocabulary still grows", "Heaps 1978", "higher"
    ),
    "heaps_r2": Measure("R² of the line through log V over log n"),
    "mean_similarity": Measure(
        "mean cosine over all pairs of texts (hashed words and pairs of words, tf-idf; or given"
        " embeddings)",
        "Zhu et al. 2018 (self-similarity); Weinberger et al. 2009 (hashing)",
        "lower",
    ),
    "nearest_similarity": Measure(
        "mean cosine with the most similar other text, among at most 2000",
        "Zhu et al. 2018",
        "lower",
    ),
    "vendi": Measure(
        "effective number of different texts among at most 1000",
        "Friedman and Dieng 2023",
        "higher",
    ),
    "clusters": Measure(
        "clusters of k-means over the texts of all splits", "Arthur and Vassilvitskii 2007"
    ),
    "cluster_coverage": Measure(
        "clusters that hold a text of this split, of all", "", "higher", True
    ),
    "cluster_entropy": Measure(
        "entropy of the cluster sizes divided by log k: 1 where all are equal",
        "Pielou 1966",
        "higher",
    ),
    "clusters_effective": Measure(
        "exp of that entropy: so many equal clusters would be as diverse", "Hill 1973", "higher"
    ),
    # noise
    "noisy_rows": Measure("rows that break at least one rule of noise", GOPHER, "lower", True),
    **{
        name: Measure(f"rows: {says}", "" if "(ours)" in says else GOPHER, "lower", True)
        for name, says in noise.RULES.items()
    },
    **{
        name: Measure(
            f"rows: {says}; made for web pages in English, not counted as noise", GOPHER, "", True
        )
        for name, says in noise.INFORMATIVE.items()
    },
    "label_issues": Measure(
        "labels that confident learning holds for wrong, of those looked at",
        "Northcutt et al. 2021",
        "lower",
        True,
    ),
    "label_issue_rows": Measure("rows that confident learning looked at"),
    # distribution
    **_length,
    "scripts": Measure(
        "scripts; that of a text is the script of most of its letters", "Unicode character names"
    ),
    "classes": Measure("different labels"),
    "class_evenness": Measure(
        "entropy of the class sizes divided by log of their number: 1 where all are equal",
        "Pielou 1966",
        "higher",
    ),
    "classes_effective": Measure("exp of that entropy", "Hill 1973"),
    "majority_share": Measure(
        "rows with the most frequent label, of those with one: the accuracy of always guessing it",
        "",
        "lower",
        True,
    ),
    "imbalance": Measure(
        "rows of the largest class divided by those of the smallest",
        "Japkowicz and Stephen 2002",
        "lower",
    ),
    "labels_per_row": Measure("labels per labelled row"),
    # drift
    **_drift,
    "vocabulary_js": Measure(
        "Jensen-Shannon divergence of the word counts of both samples, in bits: 0 equal, 1 nothing"
        " in both",
        "Lin 1991",
        "lower",
    ),
    "unknown_words": Measure(
        "words of the sample that the reference's sample does not have", "", "lower", True
    ),
    "shared_rows": Measure("rows whose text stands in the reference split too", "", "lower", True),
    # agreement
    "rated_items": Measure("items with a rating"),
    "items_rated_twice": Measure(
        "items with at least two ratings; only these tell about agreement"
    ),
    "ratings": Measure("ratings"),
    "alpha": Measure(
        "Krippendorff's alpha: 1 agreement, 0 chance; from 0.8 on reliable, from 0.667 on tentative"
        " (a convention)",
        "Krippendorff 2004",
        "higher",
    ),
    "fleiss_kappa": Measure(
        "Fleiss' kappa, where all items have as many ratings (nominal)", "Fleiss 1971", "higher"
    ),
    "kappa_mean": Measure(
        "mean of Cohen's kappa over pairs of annotators (nominal)", "Cohen 1960", "higher"
    ),
    "kappa_pairs": Measure("pairs of annotators with an item in common"),
    # contamination
    "ngram": Measure("words of a run that counts as shared"),
    "benchmark_rows": Measure("rows of the benchmark"),
    "short_rows": Measure("rows of the benchmark that have fewer words and cannot be judged"),
    "contaminated_rows": Measure(
        "rows of the benchmark of which a run of n words stands in the data",
        "Brown et al. 2020 (GPT-3), appendix C",
        "lower",
    ),
    "contaminated_share": Measure(
        "contaminated rows, of those that can be judged",
        "Brown et al. 2020 (GPT-3), appendix C",
        "lower",
        True,
    ),
    "data_rows_concerned": Measure("rows of the data that hold such a run", "", "lower"),
}
