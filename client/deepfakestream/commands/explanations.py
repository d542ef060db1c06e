"""The command that explains the faces of a job."""

import time
from pathlib import Path
from typing import Final

import click

from deepfakestream.client import Client
from deepfakestream.commands.context import Number, open_client, shown_write_errors
from deepfakestream.errors import NotFoundError, WaitTimeoutError, unexpected_answer_error
from deepfakestream.exit_statuses import INTERRUPTED
from deepfakestream.explanations import Explanation
from deepfakestream.files import replaced_when_whole
from deepfakestream.tables import describe_explanation
from deepfakestream.terminal import pluralize, say

MAX_IMAGES: Final = 1000
"""The most images that are written; a service has at most ninety."""


@click.command()
@click.argument("job_id", metavar="ID")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write the images to; made if it does not exist. Images of an earlier call are replaced.",
)
@click.option(
    "--timeout",
    "--timeout-s",
    "timeout_s",
    type=Number(min=0, min_open=True),
    help="Seconds to wait for the explanation, more than 0.",
    show_default="no limit",
)
@click.pass_context
def explain(context: click.Context, job_id: str, out: Path | None, timeout_s: float | None) -> None:
    """
    Print which parts of each person's most suspicious face raised its score.

    ID is a job's that has succeeded. The explanation is requested if there is none, and awaited.
    """
    try:
        with open_client(context) as client:
            found = _obtain_explanation(client, job_id, timeout_s, needs_images=out is not None)
            if found.error is not None or found.status != "succeeded":
                why = f"{found.error.detail} ({found.error.code})" if found.error is not None else found.status
                raise click.ClickException(f"the faces of job {job_id} could not be explained: {why}")
            say(describe_explanation(found))
            if not found.people:
                return
            if out is not None:
                with shown_write_errors(out):
                    count = _write_images(client, found, out)
                say(f"{pluralize(count, 'image')} written to {out}")
    except KeyboardInterrupt:
        say(f"interrupted; the explanation goes on, see 'deepfakestream explain {job_id}'", to_stderr=True)
        context.exit(INTERRUPTED)
    say(f"The job's report shows the same with its images: 'deepfakestream share {job_id}' prints a link to it.")


def _obtain_explanation(client: Client, job_id: str, timeout_s: float | None, *, needs_images: bool) -> Explanation:
    """Return the explanation of a job once it has ended; requested if there is none, or not the one that is needed."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def request() -> Explanation:
        return client.explain(job_id, timeout_s=_left_s(deadline))

    try:
        found = client.explanation(job_id)
    except NotFoundError:
        found = request()
    if found.status == "failed":
        say("it could not be made before, and is requested again once the service accepts that", to_stderr=True)
    if found.status == "failed" or (needs_images and found.images and not found.images_stored):
        found = request()
    if found.is_final:
        return found
    try:
        return client.wait_for_explanation(job_id, timeout_s=_left_s(deadline))
    except NotFoundError:
        # The request was dropped, since the job ended without a result: now the service says so.
        return request()
    except WaitTimeoutError as error:
        # A part of the time may have passed before the wait.
        message = f"the explanation of job {job_id} was not made within {timeout_s:g} s; it goes on"
        raise WaitTimeoutError(message) from error


def _left_s(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _write_images(client: Client, explanation: Explanation, folder: Path) -> int:
    """
    Write the images of the people of *explanation*, and return their number.

    The files get names of this function's own, so that no service can choose where to write.
    """
    if not explanation.images_stored:
        raise click.ClickException("the images were erased with the media; the numbers are all that is stored")
    images: dict[str, str] = {}
    for person in explanation.people:
        kinds = {"crop": person.images.crop, "map": person.images.map, "overlay": person.images.overlay}
        kinds |= {f"thumbnail-{number}": each.image for number, each in enumerate(person.thumbnails)}
        images |= {f"person-{person.person}-{kind}.webp": name for kind, name in kinds.items()}
    if len(images) > MAX_IMAGES:
        raise unexpected_answer_error(200, f"it has more than {MAX_IMAGES} images")
    folder.mkdir(parents=True, exist_ok=True)
    for own_name, name in images.items():
        data = client.explanation_image(explanation.job_id, name)
        with replaced_when_whole(folder / own_name) as partial_file:
            partial_file.write_bytes(data)
    return len(images)
