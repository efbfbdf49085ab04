"""The analysis of a sweep: which arm is best, by how much, and whether that is more than noise.

  from jaxsft.sweeps import analysis
  results = analysis.read_sweep("runs/my-sweep")  # trials, options, numbers, costs
  found = analysis.analyse(results)  # arms, comparisons, effects, warnings
  analysis.write_report("runs/my-sweep")  # report.html, trials.csv, trials.parquet, study.tex

Validation chooses; the test split is reported once. Nothing here imports JAX.
"""

from __future__ import annotations

from pathlib import Path

from jaxsft.reports import sweep_page
from jaxsft.rundir import write_text
from jaxsft.sweeps import sweep_sections, sweep_tables
from jaxsft.sweeps.sweep_findings import SweepAnalysis, analyse
from jaxsft.sweeps.sweep_reading import SweepResults, read_sweep

__all__ = ["SweepAnalysis", "SweepResults", "analyse", "read_sweep", "write_report"]


def write_report(folder: str | Path, metric: str | None = None) -> Path:
    """Writes `report.html`, `trials.csv`, `trials.parquet` and `study.tex` into the folder of a
    sweep, finished or not, and returns the path of the report.

    Args:
      metric: `split/number` that chooses; None: that of the study, else of the trials.

    Raises DataError where the folder is no sweep, and ConfigError where the test split chooses.
    """
    folder = Path(folder)
    found = analyse(read_sweep(folder, metric))
    rows = found.results.rows()
    sweep_tables.write_csv(folder / "trials.csv", rows)
    sweep_tables.write_parquet(folder / "trials.parquet", rows)
    write_text(folder / "study.tex", sweep_tables.latex(found))
    return sweep_page.write_page(folder, sweep_sections.page_of(found))
