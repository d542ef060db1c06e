"""Commands about reports: download them, and make links to them."""

from pathlib import Path

import click

from deepfakestream.commands.context import Number, open_client, shown_errors, shown_write_errors
from deepfakestream.errors import DeepfakeStreamError
from deepfakestream.local import load_local_function, scan_local_file
from deepfakestream.requests.reports import REPORT_TYPES
from deepfakestream.terminal import pluralize, say


class _ShareHours(Number):
    """The hours for which a link works."""

    def _describe_range(self) -> str:
        # Used by help and errors, which would say 0.016666666666666666<=x<=8760.
        return "1 minute to 365 days"


@click.command()
@click.argument("job_id", metavar="ID|FILE")
@click.option("--local", is_flag=True, help="Scan FILE in this process, and write the report of that.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write, .html or .pdf; replaced.",
    show_default="report-ID.html, or report-FILE.html, in this folder",
)
@click.pass_context
def report(context: click.Context, job_id: str, local: bool, out: Path | None) -> None:
    """
    Write the report of a job as one HTML file or as a PDF.

    ID is that of a job of the service; with --local, FILE is an image or a video that is scanned without a service. The
    report holds all numbers and words, and not the media. If the job was explained, it shows faces of the people.
    """
    if out is None:
        # By the name that the service gives to its download, and never in another folder, whatever was typed.
        out = Path(f"report-{Path(job_id).name}.html")
        if out.exists():
            raise click.ClickException(f"{out} exists; name the file to write with --out, which is replaced")
    if out.suffix.lower() not in REPORT_TYPES:
        raise click.BadParameter("name a file that ends in .html or .pdf", param_hint="--out")
    if local:
        _write_local_report(Path(job_id), out)
    else:
        with shown_write_errors(out), open_client(context) as client:
            client.report(job_id, out)
    say(f"{out} written")


def _write_local_report(file: Path, out: Path) -> None:
    with shown_errors():
        scan, render = load_local_function("scan"), load_local_function("report")
    try:
        document = scan_local_file(scan, file)
    except DeepfakeStreamError as error:
        raise click.ClickException(f"{file}: {error}") from error
    with shown_write_errors(out):
        out.write_bytes(render(document, file.name, out.suffix.lower().removeprefix(".")))


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--hours", type=_ShareHours(1 / 60, 365 * 24), default=168, help="How long the link works, in hours.")
@click.option("--revoke", is_flag=True, help="Revoke all links to the report instead.")
@click.pass_context
def share(context: click.Context, job_id: str, hours: float, revoke: bool) -> None:
    """
    Print a link by which people without an API key see the report of a job.

    ID is the job's. Whoever has the link sees this job's report and media, and nothing else.
    """
    with open_client(context) as client:
        if revoke:
            links = client.shares(job_id)
            for link in links:
                client.revoke_share(job_id, link.id)
            say(f"{job_id}: {pluralize(len(links), 'link')} revoked")
        else:
            say(client.share(job_id, valid_s=round(3600 * hours)).url or "")
