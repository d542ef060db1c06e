import json
import re
import xml.etree.ElementTree as ET
from base64 import b64decode

import pytest

from shared.manifests import Calibration
from tests.unit.worker.training.rule_data import MANIFEST, Darkness, checkpoint
from worker.model.checkpoint import save_checkpoint
from worker.model.network import ForgeryNetwork
from worker.training.__main__ import main
from worker.training.evaluation.evaluate import Evaluation, evaluate
from worker.training.evaluation.report import MEASURES, cautions, render_html, summary_lines, write_report


@pytest.fixture(scope="module")
def evaluation(judged):
    """By a rule that is wrong about one face or another."""
    return evaluate(checkpoint(Darkness(middle=0.25, slope=-3.0)), [judged.source()], limit=1, rounds=20)


@pytest.fixture(scope="module")
def page(evaluation):
    """It takes seconds, nearly all for its plots."""
    return render_html(evaluation)


@pytest.mark.usefixtures("no_plots")
def test_the_json_file_has_every_metric(evaluation, tmp_path):
    write_report(evaluation, tmp_path / "new" / "folder")
    report = json.loads((tmp_path / "new/folder/report.json").read_text())
    assert report == json.loads(json.dumps(evaluation.report))
    for part in ("by_video", "by_frame"):
        assert set(MEASURES) <= set(report[part])
        assert set(MEASURES) == set(report[part]["intervals"])
        assert sum(report[part]["histogram"]["real"]) == report[part]["count"] - report[part]["fakes"]
    assert report["checkpoint"]["version"] == MANIFEST.version


def test_the_page_has_the_figures_the_split_and_the_mistakes(evaluation, page):
    report = evaluation.report
    for name, title in MEASURES.items():
        assert title in page
        value = report["by_video"][name]
        assert ("–" if value is None else f"{value:.3f}") in page
    assert report["checkpoint"]["weights_sha256"] in page
    assert report["split"]["sources"]["judged"]["sha256"] in page
    assert "test/real/noise.png" in page
    assert report["worst"]
    for mistake in report["worst"]:
        assert mistake["key"] in page


def test_the_page_is_self_contained(evaluation, page):
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(addresses) == 3 + len(evaluation.report["worst"])
    assert all(address.startswith("data:image/") for address in addresses)
    assert "url(" not in page
    assert "<script" not in page


def test_plots_and_pictures_have_their_declared_types(page):
    for kind, data in re.findall(r'src="data:image/([^;]+);base64,([^"]+)"', page):
        content = b64decode(data, validate=True)
        if kind == "svg+xml":
            assert ET.fromstring(content).tag.endswith("svg")  # noqa: S314 - our own plot
        else:
            assert content.startswith(b"\xff\xd8")


@pytest.mark.usefixtures("no_plots")
def test_names_of_media_are_escaped_in_the_page(evaluation):
    evil = '<script>alert("x")</script>.jpg'
    report = json.loads(json.dumps(evaluation.report))
    report["worst"][0]["key"] = report["unscored"][0]["key"] = evil
    page = render_html(Evaluation(report, evaluation.pictures))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2


def test_a_report_of_one_class_without_mistakes_and_robustness_can_be_drawn(judged):
    found = evaluate(
        checkpoint(Darkness(middle=0.1)), [judged.source()], sets=["validation"], robustness=False, rounds=20
    )
    page = render_html(found)
    assert "Caution: all media are of one class" in page
    assert "every medium is on its own side" in page
    assert "Robustness" not in page


def test_the_same_evaluation_gives_the_same_page(evaluation, page):
    assert render_html(evaluation) == page


def test_the_summary_has_a_line_for_every_measure(evaluation):
    text = "\n".join(summary_lines(evaluation.report))
    assert all(title in text for title in MEASURES.values())
    assert "9 media (5 real, 4 fake), 20 frames" in text
    assert evaluation.report["split"]["digest"] in text


@pytest.mark.usefixtures("no_plots")
def test_few_media_few_people_and_one_class_are_cautioned_against(evaluation):
    report = json.loads(json.dumps(evaluation.report))
    assert any(line.startswith("caution: 5 real and 4 fake media are too few") for line in summary_lines(report))
    assert "Caution: 5 real and 4 fake media are too few" in render_html(evaluation)
    report["counts"] |= {"real": 20, "fake": 19}
    assert next(line for line in summary_lines(report) if "caution" in line).startswith("caution: 19 fake media are")
    report["counts"] |= {"real": 20, "fake": 20, "groups": 19}
    assert cautions(report) == ["only 19 people or shots (under 20): intervals are too narrow"]
    report["counts"]["groups"] = 20
    assert cautions(report) == []
    assert not any("caution" in line for line in summary_lines(report))
    report["counts"] |= {"real": 0}
    assert cautions(report) == ["all media are of one class, so metrics that compare real with fake are not defined"]


def test_the_summary_explains_the_threshold_when_limits_depend_on_evidence(evaluation):
    report = json.loads(json.dumps(evaluation.report))
    assert not any("as the service does" in line for line in summary_lines(report))
    report["checkpoint"]["calibration"]["bounds"] = {"image": {}}
    assert "each medium is judged by its own limits, as in the service" in "\n".join(summary_lines(report))
    text = "\n".join(summary_lines(report))
    assert "by medium: a picture or a whole video counts once" in text
    assert "by video" not in text


# This data set has a test set, which is then what is judged.
@pytest.mark.parametrize("chosen", [[], ["--set", "test"]], ids=["no set named", "test"])
@pytest.mark.usefixtures("narrow_backbone", "no_plots", "few_rounds")
def test_the_command_writes_a_report_and_prints_a_summary(judged, tmp_path, capsys, chosen):
    calibration = Calibration(temperature=0.01, threshold=0.5, uncertainty_band=(0.4, 0.6))
    manifest = MANIFEST.model_copy(update={"calibration": calibration})
    network = ForgeryNetwork(manifest.architecture, manifest.preprocessing.crop_size_px)
    save_checkpoint(tmp_path / "last", manifest, network, "# Rule\n")
    out = tmp_path / "out"
    options = [*chosen, "--caches", str(judged.caches), "--out", str(out), "--no-robustness"]
    assert main(["evaluate", str(tmp_path / "last"), str(judged.root), *options]) == 0
    printed = capsys.readouterr().out
    assert "8 media (4 real, 4 fake)" in printed
    assert str(out / "report.html") in printed
    report = json.loads((out / "report.json").read_text())
    assert report["options"] == {
        "sets": ["test"],
        "robustness": False,
        "limit": 60,
        "recipe": None,
        "device": "cpu",
    }


@pytest.mark.parametrize("given", [["missing", "."], ["missing", "nowhere", "--kind", "real"]], ids=str)
def test_the_command_reports_what_is_missing(given, capsys):
    assert main(["evaluate", *given]) == 2
    assert "evaluate: checkpoint 'missing'" in capsys.readouterr().err
