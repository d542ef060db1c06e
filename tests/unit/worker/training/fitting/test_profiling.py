import re

import pytest
import torch
import yaml

from tests.unit.worker.training.tiny_runs import make_data, settings, write_caches
from worker.training.__main__ import main


@pytest.mark.usefixtures("narrow_backbone")
@pytest.mark.parametrize("augment_on", ["loaders", "device"])
def test_the_command_prints_the_cost_of_step_parts_and_pair_kinds(augment_on, tmp_path, capsys):
    threads = torch.get_num_threads()
    data = make_data(tmp_path / "data")
    caches = write_caches(data, tmp_path / "caches")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings(augment_on=augment_on)))
    assert main(["profile", str(recipe), str(data), "--caches", str(caches[0].parent), "--steps", "2"]) == 0
    torch.set_num_threads(threads)
    printed = dict(re.findall(r"^  (\w+) +([\d.]+)", capsys.readouterr().out, re.MULTILINE))
    parts = ("loaders", "transfer", "teacher", "augmentation", "forward", "backward", "optimiser", "average")
    assert printed.keys() == {*parts, "operations", "waits", "labelled", "textbook"}
    assert float(printed["teacher"]) == 0
    assert (float(printed["augmentation"]) > 0) == (augment_on == "device")
    assert min(float(printed[name]) for name in ("loaders", "forward", "backward", "optimiser", "average")) > 0
    assert int(printed["operations"]) > 500
    assert int(printed["waits"]) == 1  # For the loss.
