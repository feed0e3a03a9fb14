"""What people see of an audit: the HTML report, its figures, the progress bar and the TensorBoard log of a search."""

from retrace_pl.report.html import render_report, write_report
from retrace_pl.report.run_data import RunData

__all__ = ["RunData", "render_report", "write_report"]
