"""What people see of an audit: the HTML report, its figures, the progress bar and the TensorBoard log of a search."""

from retrace_pl.report.html import render_report, write_report
from retrace_pl.report.overview import overview_figure
from retrace_pl.report.progress import RichSearchProgress
from retrace_pl.report.run_data import RunData
from retrace_pl.report.tensorboard import TensorBoardSearchObserver

__all__ = [
    "RichSearchProgress",
    "RunData",
    "TensorBoardSearchObserver",
    "overview_figure",
    "render_report",
    "write_report",
]
