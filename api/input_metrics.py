"""
Gauges of what checkpoints are given to judge, beside their validation sets; see ``api.competence``.

A checkpoint and kind without enough jobs, or without a reference, has no index.
"""

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy.orm import Session

from api.competence import PERIODS_DAYS, References, compare_inputs, share
from shared.jobs.inputs import today


def collect_inputs(session: Session, models_dir: Path) -> Iterator[Metric]:
    """Yield the gauges of the last 1, 7 and 30 days."""
    index = GaugeMetricFamily(
        "deepfakestream_input_psi",
        "Population stability index of a property of scored faces against those of the validation set.",
        labels=["model", "kind", "property", "direction", "days"],
    )
    counted = GaugeMetricFamily(
        "deepfakestream_inputs_compared",
        "Jobs with a scored face in a period.",
        labels=["model", "kind", "days"],
    )
    band = GaugeMetricFamily(
        "deepfakestream_band_share",
        "Share of scores between the limits of real and fake.",
        labels=["model", "kind", "days"],
    )
    verdicts = GaugeMetricFamily(
        "deepfakestream_verdict_share",
        "Share of the jobs with a verdict.",
        labels=["model", "kind", "verdict", "days"],
    )
    validated = GaugeMetricFamily(
        "deepfakestream_validation_band_share",
        "Share of scores between the limits of real and fake in the validation set.",
        labels=["model", "label"],
    )
    references = References(models_dir)
    end = today(session)
    bands: dict[tuple[str, str], float] = {}
    for days in PERIODS_DAYS:
        for found in compare_inputs(session, references, end, days):
            totals = found.totals
            labels = [totals.model, totals.kind.value]
            counted.add_metric([*labels, str(days)], totals.scores)
            for each, measured in found.unlikeness.items():
                index.add_metric([*labels, each.value, measured.direction, str(days)], measured.index)
            if found.band_share is not None:
                band.add_metric([*labels, str(days)], found.band_share)
            for verdict, jobs in totals.verdicts.items():
                verdicts.add_metric([*labels, verdict, str(days)], share(jobs, totals.jobs) or 0.0)
            for label, judged in found.judged.items():
                bands[totals.model, label] = share(judged.scores_in_band, judged.media) or 0.0
    for (model, label), value in sorted(bands.items()):
        validated.add_metric([model, label], value)
    yield from (index, counted, band, verdicts, validated)
