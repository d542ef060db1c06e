"""The report of a scan that was made without a service, for ``deepfakestream report FILE --local``."""

from collections.abc import Mapping
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from api.web.contents import describe_report, read_styles
from api.web.pdf import render_pdf
from shared.documents.jobs import JobDocument
from shared.manifests import PACKAGED_MODELS_DIR


def render_report(document: Mapping[str, Any], filename: str, kind: Literal["html", "pdf"]) -> bytes:
    """
    Render the report of a scan as one file.

    Args:
        document: The job as ``worker.local.scan`` returns it, with all segments.
        filename: Name of the file, to be shown.

    Returns:
        The report, UTF-8 if it is HTML.
    """
    job = JobDocument.model_validate({**document, "metadata": {"filename": filename}})
    values = describe_report(job, job.segments, PACKAGED_MODELS_DIR)
    if kind == "pdf":
        return render_pdf(values)
    pages = Environment(loader=PackageLoader("api.web"), autoescape=True, undefined=StrictUndefined)
    template = pages.get_template("report.html")
    return template.render(**values, explained=[], token=None, styles=read_styles()).encode()
