"""The demonstration: a real and a swapped video are scanned by the whole service, and the scores are explained."""

import time
from collections.abc import Sequence
from pathlib import Path

from deepfakestream.client import Client
from deepfakestream.outcomes import ScanResult
from deepfakestream.printing import TablePrinter
from deepfakestream.results import Job
from deepfakestream.scanning import Options, Scan
from deepfakestream.tables import describe_limits, format_score
from deepfakestream.terminal import safe_text, say
from rich.console import Console

from api.embedded.demo_videos import make_demo_videos
from api.embedded.stack import EmbeddedStack
from api.embedded.state import prepare_folder

DEMO_TIMEOUT_S = 600.0


def run_demo(state: Path, console: Console) -> list[ScanResult]:
    """
    Make a real and a swapped video in *state*, scan both with a stack of their own, and print what was measured.

    Raises:
        MissingPartError: The packages of the demo are not installed.
        StackError: The service cannot be started.
    """
    began = time.monotonic()
    folder = prepare_folder(state / "demo")
    print_step("making two videos from two portraits in the public domain: as they are, and with their faces swapped")
    videos = make_demo_videos(folder)
    with EmbeddedStack(state, say=print_step) as stack:
        print_step(f"ready after {time.monotonic() - began:.1f} s, API at {stack.url}")
        with Client(stack.url, stack.api_key_file.read_text().strip()) as client:
            scan = Scan(Options(timeout_s=DEMO_TIMEOUT_S), TablePrinter(console))
            results = scan.scan_with_service(client, [str(video) for video in videos])
            print_summary(console, results)
            print_assessment(console, [result.job for result in results])
        print_step("stopping")
    print_step(f"done after {time.monotonic() - began:.1f} s; the two videos are in {folder}")
    return results


def print_step(message: str) -> None:
    """Print to standard error what is being done."""
    say(f"· {message}", to_stderr=True)


def print_summary(console: Console, results: Sequence[ScanResult]) -> None:
    """Print a line for each video: its verdict, its score, and the limits of the verdicts."""
    console.print()
    for result in results:
        job, name = result.job, Path(result.source).name
        if job is None or job.model is None:
            console.print(safe_text(f"{name}: no result"))
            continue
        measured = (
            f"average {format_score(job.fake_score)}; {describe_limits(job, job.model)}"
            if job.fake_score is not None
            else "no score"
        )
        console.print(safe_text(f"{name}: {job.verdict}, {measured}"))


def print_assessment(console: Console, jobs: Sequence[Job | None]) -> None:
    """
    Print whether the scores of the two videos are on the right side of the threshold.

    Args:
        jobs: The job of the real video and that of the swapped one; nothing is printed if either is None.
    """
    real, swapped = jobs
    if real is None or swapped is None or real.model is None:
        return
    if not real.model.trained:
        text = (
            "This checkpoint is untrained: its numbers carry no information about any face, which is why the"
            " verdicts are inconclusive."
        )
    elif real.fake_score is None or swapped.fake_score is None:
        text = "One of the videos got no score, so there is nothing to compare."
    else:
        text = _compare(real, real.fake_score, swapped, swapped.fake_score)
    console.print(f"\n{text}", highlight=False)


def _compare(real: Job, real_score: float, swapped: Job, swapped_score: float) -> str:
    """Return sentences that compare both scores with their thresholds."""
    real_threshold, swapped_threshold = _threshold_of(real), _threshold_of(swapped)
    is_real_right, is_swapped_right = real_score < real_threshold, swapped_score >= swapped_threshold
    outcome = {
        (True, True): "Both are on the right side of the threshold.",
        (True, False): "The swapped one stays below the threshold: this swap was missed.",
        (False, True): "The real one is above the threshold: a false alarm.",
        (False, False): "Both are on the wrong side of the threshold.",
    }[is_real_right, is_swapped_right]
    text = (
        f"Measured: the real video {real_score:.3f} with the threshold {real_threshold:.3f}, the swapped one"
        f" {swapped_score:.3f} with {swapped_threshold:.3f}. {outcome}"
    )
    if not (is_real_right and is_swapped_right):
        order = "above" if swapped_score > real_score else "not above"
        text += f" The swapped video is {order} the real one."
    return f"{text} The checkpoint is a research baseline: its model card says how weak it is."


def _threshold_of(job: Job) -> float:
    """Return the score from which on the job is called fake, given its evidence."""
    if job.evidence is not None and job.evidence.fake_from is not None:
        return job.evidence.fake_from
    return job.model.threshold if job.model is not None else 1.0
