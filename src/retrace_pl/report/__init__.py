"""What people see of an audit: the HTML report, its figures, the progress bar and the TensorBoard logs."""

from retrace_pl.report.evaluation_log import write_evaluation_log
from retrace_pl.report.html import render_report, write_report
from retrace_pl.report.latent_map import LatentMap, collect_latents
from retrace_pl.report.overview import overview_figure
from retrace_pl.report.progress import RichSearchProgress
from retrace_pl.report.run_data import RunData
from retrace_pl.report.tensorboard import TensorBoardSearchObserver

__all__ = [
    "LatentMap",
    "RichSearchProgress",
    "RunData",
    "TensorBoardSearchObserver",
    "collect_latents",
    "overview_figure",
    "render_report",
    "write_evaluation_log",
    "write_report",
]
