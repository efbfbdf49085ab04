"""Everything that is written for people from the files of a run: figures, `report.md`, `report.html` and the model card."""

from pathlib import Path

from jaxsft.reports import card, figures, page, report


def write_all(run_dir: str | Path) -> list[Path]:
    """Write figures, report.md, report.html and README.md, and return the last three; a README.md of the user's own stays and is left out.

    Raises:
        JaxsftError: `run_dir` is not the directory of a run, or a file cannot be written.
        DataError: a file that a figure needs is not what its name says.
    """
    run_dir = Path(run_dir)
    figures.write_figures(run_dir)
    written = [report.write_report(run_dir), card.write_card(run_dir), page.write_page(run_dir)]
    return [path for path in written if path is not None]
