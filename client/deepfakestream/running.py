"""``deepfakestream up`` and ``demo``: the embedded stack, and what is printed about it."""

import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from deepfakestream.client import Client
from deepfakestream.connection import announced
from deepfakestream.demo import make_demo_videos
from deepfakestream.results import Job
from deepfakestream.scanning import Options, Scan, Scanned
from deepfakestream.stack.embedded import EmbeddedStack, prepare_folder
from deepfakestream.tables import limits, score
from deepfakestream.terminal import plain, say

DEMO_TIMEOUT_S = 600.0


def run_stack(state: Path, *, port: int | None, flower_port: int | None) -> None:
    """
    Run the service with its state in *state* until KeyboardInterrupt.

    Raises:
        StackError: It cannot be started, or a part of it dies again and again.
    """
    with (
        EmbeddedStack(state, port=port, flower_port=flower_port, say=step) as stack,
        announced(stack.state) as can_be_found,
    ):
        say(
            f"\nAPI            {stack.url}   documentation {stack.url}/docs\n"
            f"Flower         {stack.flower_url}   user operator, password in {stack.flower_password_file}\n"
            f"metrics        {stack.url}/metrics, {', '.join(stack.metrics_urls)}\n"
            f"API key        in {stack.api_key_file}\n"
            f"webhook secret in {stack.webhook_secret_file}\n"
            f"logs           {stack.state / 'logs'}\n\n"
            f"Ready. Try '{command(stack.state, can_be_found)} scan FILE' in another terminal; Ctrl-C stops everything."
        )
        stack.watch()


def command(state: Path, can_be_found: bool) -> str:
    """How to call this program from another terminal, so that it finds the stack with its state in *state*."""
    program = Path(sys.argv[0]).absolute()
    on_path = shutil.which("deepfakestream")
    name = "deepfakestream" if on_path and Path(on_path).absolute() == program else shlex.quote(str(program))
    return name if can_be_found else f"{name} --state {shlex.quote(str(state))}"


def run_demo(state: Path, console: Console) -> list[Scanned]:
    """
    Make a real and a swapped video in *state*, scan both by a stack of their own, and say what was measured.

    Raises:
        MissingPartError: The demo's packages are not installed.
        StackError: The service cannot be started.
    """
    began = time.monotonic()
    folder = prepare_folder(state / "demo")
    step("making two videos from two portraits in the public domain: as they are, and with their faces swapped")
    videos = make_demo_videos(folder)
    with EmbeddedStack(state, say=step) as stack:
        step(f"ready after {time.monotonic() - began:.1f} s, API at {stack.url}")
        with Client(stack.url, stack.api_key_file.read_text().strip()) as client:
            scanner = Scan(Options(timeout_s=DEMO_TIMEOUT_S), console, as_json=False)
            results = scanner.through(client, [str(video) for video in videos])
            summarise(console, results)
            explain(console, [result.job for result in results])
        step("stopping")
    step(f"done after {time.monotonic() - began:.1f} s; the two videos are in {folder}")
    return results


def step(message: str) -> None:
    """Tell what is being done."""
    say(f"· {message}", to_stderr=True)


def summarise(console: Console, results: Sequence[Scanned]) -> None:
    """Print a line for each video: its verdict, its score, and from where on that score is called fake or real."""
    console.print()
    for result in results:
        job, name = result.job, Path(result.source).name
        if job is None or job.model is None:
            console.print(plain(f"{name}: no result"))
            continue
        found = (
            f"average {score(job.fake_score)}; {limits(job, job.model)}" if job.fake_score is not None else "no score"
        )
        console.print(plain(f"{name}: {job.verdict}, {found}"))


def explain(console: Console, jobs: Sequence[Job | None]) -> None:
    """Say what the scores of the real and the swapped video are worth, as they were measured."""
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
        thresholds = [_threshold(job) for job in (real, swapped)]
        sides = real.fake_score < thresholds[0], swapped.fake_score >= thresholds[1]
        measured = (
            f"the real video {real.fake_score:.3f} with the threshold {thresholds[0]:.3f}, the swapped one"
            f" {swapped.fake_score:.3f} with {thresholds[1]:.3f}"
        )
        text = (
            f"Measured: {measured}. "
            + {
                (True, True): "Both are on the right side of the threshold.",
                (True, False): "The swapped one stays below the threshold: this swap was missed.",
                (False, True): "The real one is above the threshold: a false alarm.",
                (False, False): "Both are on the wrong side of the threshold.",
            }[sides]
        )
        if not all(sides):
            order = "above" if swapped.fake_score > real.fake_score else "not above"
            text += f" The swapped video is {order} the real one."
        text += " The checkpoint is a research baseline: its model card says how weak it is."
    console.print(f"\n{text}", highlight=False)


def _threshold(job: Job) -> float:
    """From where on the job's score is called fake, given how much was seen."""
    if job.evidence is not None and job.evidence.fake_from is not None:
        return job.evidence.fake_from
    return job.model.threshold if job.model is not None else 1.0
