from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR
from tests.unit.worker.training.cutting_here import cut_here
from tests.unit.worker.training.prebuilt import make_ready, rows_of, write_rows
from tests.unit.worker.training.rule_data import MANIFEST, Darkness, checkpoint
from tests.unit.worker.training.tiny_runs import settings, tiny, train_here
from worker.training.__main__ import main
from worker.training.data.cache import CropCache
from worker.training.data.datasets import guess_kind
from worker.training.data.sources import read_source_media
from worker.training.errors import DataError
from worker.training.evaluation.cross_validation import cross_validate
from worker.training.evaluation.evaluate import evaluate
from worker.training.evaluation.sources import folder_source
from worker.training.fakes.augmentation import Augmentation
from worker.training.fakes.kinds import Stage
from worker.training.fakes.pair_stream import RealFakePairStream
from worker.training.fitting.inputs import build_caches


@pytest.fixture
def ready(tmp_path):
    return make_ready(tmp_path / "data" / "ready")


def recipe_of(**source):
    return tiny(sources=[{"kind": "crop-cache", "path": "ready", **source}])


def build(ready, name="caches", **source):
    (folder,) = build_caches(recipe_of(**source), ready.parent, ready.parents[1] / name)
    return folder


def state(folder):
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


def test_a_prebuilt_cache_is_linked_and_not_copied(ready):
    before = state(ready)
    folder = build(ready)
    assert state(ready) == before
    tars = sorted(folder.glob("*.tar"))
    assert [path.resolve() for path in tars] == [ready / name / "00000.tar" for name in ("train", "validation")]
    assert all(path.is_symlink() for path in tars)
    cache = CropCache(folder)
    faces = list(cache.read_faces())
    rows = rows_of(ready / "train") + rows_of(ready / "validation")
    assert [(face.key, face.set, face.original) for face in faces] == [
        (row["key"], row["set"], row["original"]) for row in rows
    ]
    for face, row in zip(faces, rows, strict=True):
        data = (ready / row["set"] / "00000.tar").read_bytes()[row["offset"] :][: row["length"]]
        (folder / "one.jpg").write_bytes(data)
        shown = np.asarray(Image.open(folder / "one.jpg")).astype(int)
        assert np.abs(cache.read_picture(face) - shown).max() < 8  # Two decoders.


def test_training_pairs_are_made_from_a_prebuilt_cache(ready):
    folder = build(ready)
    pairs = RealFakePairStream(
        [folder], [Stage(1, {"labelled": 1.0, "textbook": 1.0})], Augmentation(), size_px=64, margin=0.1
    )
    pictures, _, _ = pairs.make_batch(0)
    assert pictures.shape == (32, 3, 64, 64)


def test_a_single_prebuilt_folder_is_accepted(ready):
    (folder,) = build_caches(recipe_of(path="ready/train"), ready.parent, ready.parents[1] / "caches")
    assert {face.group for face in CropCache(folder).read_faces()} == {"part-0", "part-1", "part-2"}


def test_a_second_call_writes_nothing_and_another_split_is_rejected(ready):
    folder = build(ready)
    before = state(folder)
    assert state(build(ready)) == before
    with pytest.raises(DataError, match="another division"):
        build(ready, hold_out={"test": 1.0})
    assert state(folder) == before


def test_training_groups_can_be_held_out_by_share_or_by_name(ready):
    folder = build(ready, hold_out={"test": 1.0}, sets={"part-1": "train"})
    sets = {face.group: face.set for face in CropCache(folder).read_faces()}
    wanted = {"part-0": "test", "part-1": "train", "part-2": "test", "part-8": "validation", "part-9": "validation"}
    assert sets == wanted


def test_a_cache_built_in_the_folder_is_not_overwritten(ready):
    folder = ready.parents[1] / "caches" / "ready"
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text("{}")
    (folder / "train-00000.tar").write_bytes(b"crops")
    with pytest.raises(DataError, match="was built there"):
        build(ready)
    assert (folder / "train-00000.tar").read_bytes() == b"crops"


def test_a_prebuilt_cache_can_be_evaluated(ready):
    rows = rows_of(ready / "train")
    rows[0]["size_px"] = 10.0
    write_rows(ready / "train", rows)
    assert guess_kind(ready) == "crop-cache"
    source = folder_source(ready, MANIFEST, ready.parents[1] / "crops", kind="crop-cache")
    assert len(list(source.media())) == 10
    found = evaluate(checkpoint(Darkness()), [source], rounds=10, limit=1).report
    assert found["counts"]["media"] == 9
    row = {"dataset": "ready", "key": "part-0-real", "set": "train", "label": "real", "reason": "no_usable_face"}
    assert found["unscored"] == [row]
    split = found["split"]["sources"]["ready"]
    assert (split["media"], split["unknown_originals"]) == ({"train": 6, "validation": 4}, 0)
    assert found["pairs_above"]["count"] == 4


@pytest.mark.usefixtures("no_plots", "few_rounds")
def test_the_command_line_evaluates_it(ready, tmp_path, capsys):
    out, caches = ("--out", str(tmp_path / "report")), ("--caches", str(tmp_path / "crops"))
    model = str(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)
    options = ("--kind", "crop-cache", "--set", "validation", "--no-robustness", *out, *caches)
    before = state(ready)
    assert main(["evaluate", model, str(ready), *options]) == 0
    assert state(ready) == before
    assert "report: " in capsys.readouterr().out


def change_row(number, **values):
    def change(ready):
        rows = rows_of(ready / "train")
        rows[number] |= values
        write_rows(ready / "train", rows)

    return change


def without(name):
    def change(ready):
        rows = rows_of(ready / "train")
        del rows[1][name]
        write_rows(ready / "train", rows)

    return change


def bytes_of_row(number, data, at=0):
    """Overwrites the picture of a row from byte *at* of it; from its end, if that is negative."""

    def change(ready):
        row = rows_of(ready / "train")[number]
        with (ready / "train" / "00000.tar").open("r+b") as file:
            file.seek(row["offset"] + at % row["length"])
            file.write(data)

    return change


def append(line):
    def change(ready):
        with (ready / "train" / "00000.jsonl").open("a") as file:
            file.write(f"{line}\n")

    return change


def cut_tar(ready):
    tar = ready / "train" / "00000.tar"
    last = rows_of(ready / "train")[-1]
    tar.write_bytes(tar.read_bytes()[: last["offset"] + last["length"] - 1])


def no_tar(ready):
    (ready / "train" / "00000.tar").unlink()


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        (append("no json"), r"rows that are not JSON objects \(1\): train/00000.jsonl line 7$"),
        (without("offset"), r"do not describe a face of a crop cache \(1\): train/00000.jsonl line 2$"),
        (change_row(2, box_px=7), r"do not describe a face of a crop cache \(1\): train/00000.jsonl line 3$"),
        (change_row(2, shard="1"), r"name another shard \(1\): train/00000.jsonl line 3 \(part-1-real\)$"),
        (change_row(2, offset=1e3), r"no valid offset and length \(1\): train/00000.jsonl line 3 \(part-1-real\)$"),
        (change_row(2, offset=10**9), r"a position outside the tar \(1\): train/00000.jsonl line 3 \(part-1-real\)$"),
        (change_row(2, offset=-1), r"a position outside the tar \(1\): train/00000.jsonl line 3 \(part-1-real\)$"),
        (change_row(2, length=0), r"a position outside the tar \(1\): train/00000.jsonl line 3 \(part-1-real\)$"),
        (cut_tar, r"name a position outside the tar \(1\): train/00000.jsonl line 6 \(part-2-fake\)$"),
        (bytes_of_row(3, b"text"), r"a file that is not a picture \(1\): train/00000.jsonl line 4 \(part-1-fake\)$"),
        (bytes_of_row(3, bytes(16), -16), r"name a truncated picture \(1\): train/00000.jsonl line 4 \(part-1-fake\)$"),
        (no_tar, r"train/00000.jsonl has no readable 00000.tar beside it$"),
        (change_row(1, label="REAL"), r"have an invalid or missing label \(1\): train/00000.jsonl line 2$"),
        (change_row(1, set="val"), r"have an invalid or missing set \(1\): train/00000.jsonl line 2$"),
        (change_row(1, group=""), r"have an invalid or missing group \(1\): train/00000.jsonl line 2$"),
        (change_row(1, is_video="no"), r"have an invalid or missing is_video \(1\): train/00000.jsonl line 2$"),
        (change_row(1, original="lost"), r"an original that is not there \(1\): train/00000.jsonl line 2 \(lost\)$"),
        (change_row(1, original="part-1-fake"), r"is not real \(1\): train/00000.jsonl line 2 \(part-1-fake\)$"),
        (change_row(0, original="part-1-real"), r"are real and name an original \(1\): train/00000.jsonl line 1 "),
        (change_row(1, group="part-8"), r"second set \(2\): .* \(group part-8: validation, not train\), "),
        (change_row(1, key="part-2-fake"), r"contradict another .* \(1\): train/00000.jsonl line 6 \(part-2-fake, "),
    ],
)  # fmt: skip
def test_mistakes_of_a_prebuilt_cache_are_reported_before_building(change, mistake, ready):
    change(ready)
    with pytest.raises(DataError, match=mistake) as caught:
        build(ready)
    assert "\n" not in str(caught.value)
    assert str(ready) in str(caught.value)
    assert not (ready.parents[1] / "caches").exists()


def test_many_rows_with_a_mistake_are_counted_and_ten_are_named(ready):
    rows = rows_of(ready / "train")
    copies = [{**rows[1], "key": f"copy-{number}", "offset": -1} for number in range(12)]
    write_rows(ready / "train", [*rows, *copies])
    with pytest.raises(DataError, match=r"\(12\): .* line 7 \(copy-0\), .* line 16 \(copy-9\) and 2 more$"):
        build(ready)


def test_a_few_originals_may_be_missing_and_are_counted(ready):
    rows = rows_of(ready / "train")
    copies = [{**rows[1], "key": f"copy-{number}", "original": "lost" if number < 2 else ""} for number in range(4)]
    known = [{**rows[1], "key": f"known-{number}"} for number in range(95)]
    write_rows(ready / "train", [*rows, *copies, *known])
    folder = build(ready)
    assert '"unknown_originals": 2' in (folder / "split.json").read_text()
    # 2 of 102 fakes that name one are borne with, 3 are not.
    copies[2]["original"] = "lost, too"
    write_rows(ready / "train", [*rows, *copies, *known])
    with pytest.raises(DataError, match=r"name an original that is not there \(3\)"):
        build(ready)


def test_a_picture_that_is_damaged_inside_is_named_when_it_is_decoded(ready):
    row = rows_of(ready / "train")[3]
    bytes_of_row(3, b"\x55" * (row["length"] - 40), 20)(ready)
    cache = CropCache(build(ready))
    (face,) = [face for face in cache.read_faces() if face.key == row["key"]]
    with pytest.raises(DataError, match=f"picture of ready/part-1-fake, at byte {row['offset']} of train-00000.tar"):
        cache.read_picture(face)


@pytest.mark.parametrize(
    ("group", "mistake"),
    [
        ("part-0", r"second set \(2\): second/part-8-real \(group part-0: validation, not train\), "),
        ("part-7", None),
    ],
)
def test_people_in_different_sets_of_two_sources_are_a_mistake(group, mistake, ready):
    (ready / "validation").rename(ready.parent / "second")
    rows = [
        {**row, "group": group if row["group"] == "part-8" else "part-9"} for row in rows_of(ready.parent / "second")
    ]
    write_rows(ready.parent / "second", rows)
    both = tiny(sources=[{"kind": "crop-cache", "path": path} for path in ("ready", "second")])
    if mistake is None:
        assert len(build_caches(both, ready.parent, ready.parents[1] / "caches")) == 2
        return
    with pytest.raises(DataError, match=mistake):
        build_caches(both, ready.parent, ready.parents[1] / "caches")


def test_a_fake_in_another_set_than_its_original_is_a_mistake(ready):
    change_row(1, group="part-5")(ready)
    with pytest.raises(DataError, match=r"original \(1\): ready/part-0-fake \(validation, and part-0-real in train\)"):
        build(ready, sets={"part-5": "validation"})


def test_a_mistake_in_a_table_of_face_crops_stops_before_cutting(tmp_path, capsys):
    root = tmp_path / "data" / "crops"
    root.mkdir(parents=True)
    (root / "metadata.csv").write_text("file,label,original,group\nlost.jpg,real,,1\n")
    (tmp_path / "data" / "tinted" / "real").mkdir(parents=True)
    (tmp_path / "data" / "tinted" / "real" / "a.png").touch()
    sources = [{"kind": "labelled", "path": "tinted"}, {"kind": "face-crops", "path": "crops"}]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings(sources=sources)))
    data, caches = str(tmp_path / "data"), tmp_path / "caches"
    assert main(["crops", str(tmp_path / "recipe.yaml"), data, "--caches", str(caches)]) == 2
    assert "rows that name a file that is not there (1): line 2 (lost.jpg)" in capsys.readouterr().err
    assert not caches.exists()


def test_a_picture_that_fails_to_decode_is_reported_before_training(tmp_path):
    root = tmp_path / "data" / "crops"
    root.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(root / "noise.png")
    whole = (root / "noise.png").read_bytes()
    (root / "inside.png").write_bytes(whole[:200] + bytes(len(whole) - 400) + whole[-200:])
    (root / "metadata.csv").write_text("file,label,original,group\nnoise.png,real,,1\ninside.png,fake,noise,1\n")
    recipe = tiny(sources=[{"kind": "face-crops", "path": "crops"}])
    with (
        cut_here(),
        pytest.raises(DataError, match=r"cannot be decoded \(1\): inside.png \(\w+\); repair them, then delete"),
    ):
        build_caches(recipe, tmp_path / "data", tmp_path / "caches")


@pytest.mark.nightly
def test_people_of_a_prebuilt_cache_are_divided_into_folds(ready):
    recipe = recipe_of()
    runs = ready.parents[1] / "runs"
    caches = ready.parents[1] / "caches"
    folds = cross_validate(recipe, ready.parent, caches, runs, path=Path("ready"), folds=2, images=8, train=train_here)
    assert Counter(group for fold in folds for group in fold.groups) == Counter(
        medium.group for medium in read_source_media(recipe.sources[0], ready.parent) if medium.label == "real"
    )
    for fold in folds:
        assert {medium.group for medium in fold.media} == set(fold.groups)


@pytest.mark.shared_data
def test_the_published_crops_are_read_where_they_are(tmp_path, research_data):
    before = {path: path.stat().st_mtime_ns for path in (research_data / "dfdc").rglob("*")}
    recipe = tiny(sources=[{"kind": "crop-cache", "path": "dfdc"}])
    (folder,) = build_caches(recipe, research_data, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (research_data / "dfdc").rglob("*")} == before
    cache = CropCache(folder)
    counts = Counter(face.set for face in cache.read_faces())
    assert set(counts) == {"train", "validation"}
    assert cache.read_picture(next(cache.read_faces())).shape == (224, 224, 3)
