"""Clusters of the texts of all splits, and how the texts of each split spread over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsft.config.schema import QualityConfig
from jaxsft.prepare.quality import embeddings as vectors
from jaxsft.prepare.quality import text_measures
from jaxsft.prepare.quality.diversity import RowSample


def found_clusters(
    samples: Mapping[str, RowSample],
    rows_of_split: int,
    config: QualityConfig,
    numbers: dict[str, Any],
) -> list[dict[str, Any]]:
    """Adds the numbers of similarity and clusters; the clusters, the largest first, with the text
    nearest to the centre of each.

    Args:
      samples: of each split. rows_of_split: of the one whose embeddings are given.
      numbers: of the card, to be added to.
    """
    names = list(samples)
    drawn = {name: part.rows()[: vectors.TEXTS] for name, part in samples.items()}
    rows = [
        (name, number, text_measures.words(text), text)
        for name, found in drawn.items()
        for number, text, *_ in found
    ]
    if config.embeddings is not None:
        every = vectors.read_embeddings(config.embeddings, rows_of_split)
        points = every[[number for _, number, *_ in rows]]
    else:
        points = vectors.hashed([words for _, _, words, _ in rows])
    of = np.array([names.index(name) for name, *_ in rows])
    k = vectors.cluster_count(len(rows), config.clusters)
    centres, cluster = vectors.kmeans(points, k, config.seed)
    sizes = np.stack([np.bincount(cluster[of == at], minlength=k) for at in range(len(names))])
    for at, name in enumerate(names):
        mine = fine = points[of == at]
        if config.embeddings is None:
            fine = vectors.hashed(
                [words for split, _, words, _ in rows if split == name][: vectors.NEAREST],
                vectors.FINE,
            )
        even, effective = vectors.evenness(sizes[at].tolist())
        numbers["diversity"][name] |= {
            "mean_similarity": vectors.mean_similarity(mine),
            "nearest_similarity": vectors.nearest_similarity(fine),
            "vendi": vectors.vendi(fine),
            "clusters": k,
            "cluster_coverage": float((sizes[at] > 0).mean()),
            "cluster_entropy": even,
            "clusters_effective": effective,
        }
    out = []
    for number in sorted(range(k), key=lambda c: (-int(sizes[:, c].sum()), c)):
        inside = np.flatnonzero(cluster == number)
        if len(inside):
            nearest = inside[int(((points[inside] - centres[number]) ** 2).sum(axis=1).argmin())]
            out.append(
                {
                    "sizes": dict(zip(names, sizes[:, number].tolist(), strict=True)),
                    "example": rows[nearest][3][:300],
                }
            )
    return out if len(rows) > 1 else []
