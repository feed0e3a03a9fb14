"""The stage that writes what a person looks at: report.html and a small overview picture."""

from __future__ import annotations

from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.report import overview_figure, write_report


def report(run: AuditRun) -> list[str]:
    """Writes report.html and overview.png from the files of the earlier stages."""
    written = [write_report(run.folder.root), overview_figure(run.folder.root)]
    return [str(path.relative_to(run.folder.root)) for path in written]
