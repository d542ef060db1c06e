"""A short run of the service's benchmark on a real service."""

import re

from worker.benchmark import service


def test_the_service_benchmark_measures_and_leaves_no_jobs(stack, client, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(service, "CLIP_S", 3)
    before = {job.id for job in client.list()}
    given = ["--url", stack.url, "--api-key-file", str(stack.api_key_file), "--scenes", str(tmp_path)]
    assert service.main([*given, "--rounds", "1", "--submissions", "8", "--connections", "2"]) == 0
    video, picture, added, accepted = capsys.readouterr().out.splitlines()
    for name, line in (("video", video), ("picture", picture)):
        assert float(re.match(rf"{name} submitted until its first segment started: (\d+) ms", line)[1]) > 0
    assert re.match(r"added to each of 3 segments: -?\d+\.\d ms", added)
    assert float(re.match(r"submissions accepted: (\d+) a second \(8, 2 at a time\)", accepted)[1]) > 0
    assert {job.id for job in client.list()} == before


def test_an_invalid_api_key_is_reported(stack, tmp_path, monkeypatch, capsys):
    key = tmp_path / "key"
    key.write_text("dfs_wrong")
    monkeypatch.setattr(service, "CLIP_S", 3)
    given = ["--url", stack.url, "--api-key-file", str(key), "--rounds", "1", "--scenes", str(tmp_path)]
    assert service.main(given) == 2
    assert "401" in capsys.readouterr().err
