"""Commands about evidence bundles: download them, show the key that signs them, and check them."""

import json
from pathlib import Path
from typing import Any

import click

from deepfakestream.commands.context import open_client, shown_errors, shown_write_errors
from deepfakestream.errors import BundleError
from deepfakestream.exit_statuses import FAILED
from deepfakestream.terminal import say
from deepfakestream.verification import describe_verification, verify_bundle
from deepfakestream.verification.attestation import read_expected_key


@click.command()
@click.argument("job_id", metavar="ID")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The zip file to write; replaced."
)
@click.pass_context
def evidence(context: click.Context, job_id: str, out: Path) -> None:
    """
    Download the signed evidence bundle of a job that has ended.

    ID is a job's, as 'scan --no-wait' and 'jobs' print it.
    """
    with shown_write_errors(out), open_client(context) as client:
        client.evidence(job_id, out)
    say(f"{out} written; check it with 'deepfakestream verify'")


@click.command("evidence-key")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with retired keys.")
@click.pass_context
def evidence_key(context: click.Context, as_json: bool) -> None:
    """Print the id and the public key that belong to the signatures of evidence bundles."""
    with open_client(context) as client:
        found = client.evidence_key()
    say(json.dumps(found) if as_json else f"{found.get('id')}\n{found['public_key']}".rstrip())


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), metavar="BUNDLE")
@click.option("--media", type=click.Path(path_type=Path), help="The image or video that it should be about.")
@click.option("--key", help="The key that should have signed it: its id, or the file of its public key (PEM).")
@click.option(
    "--timestamp-root", type=click.Path(path_type=Path), help="Certificate (PEM) of the authority that stamped it."
)
@click.option(
    "--rescore",
    "scan_again",
    is_flag=True,
    help="Scan the media again in this process and compare the scores; needs --media and an installed server.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(context: click.Context, /, bundle: Path, as_json: bool, **given: Any) -> None:
    """
    Check an evidence bundle without a service.

    BUNDLE is a zip file that 'evidence' has downloaded. The exit status is 1 if anything is wrong with it, and 2 if a
    file or the key cannot be read.
    """
    if given["scan_again"] and given["media"] is None:
        raise click.UsageError("--rescore needs the media: give it with --media")
    for path in (bundle, given["media"]):
        if path is not None:
            _check_readable(path)
    if given["key"] is not None:
        try:
            read_expected_key(given["key"])
        except BundleError as error:
            # It says nothing about the bundle.
            raise click.UsageError(str(error)) from error
    with shown_errors():
        found = verify_bundle(bundle, **given)
    say(json.dumps(found.to_json()) if as_json else describe_verification(found))
    context.exit(0 if found.passed else FAILED)


def _check_readable(path: Path) -> None:
    """Refuse a file that cannot be opened, which says nothing about a bundle."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read ({error.strerror or error})") from error
