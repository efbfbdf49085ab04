"""The quality card of a data set.

Numbers about completeness, consistency, diversity, noise, distribution, agreement and
contamination.

`card` makes it from rows, `of_config` opens files, `compare` sets two side by side,
`measures.MEASURES` defines every number, and `jaxsft.reports.quality_page` writes it as pages. Rows
stream through; what grows with them is said at the top of each family's file.
"""

from jaxsft.prepare.quality.build import card
from jaxsft.prepare.quality.card_comparison import compare
from jaxsft.prepare.quality.inputs import Sets, of_config, of_rows

__all__ = ["Sets", "card", "compare", "of_config", "of_rows"]
