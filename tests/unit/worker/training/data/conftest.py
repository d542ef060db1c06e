"""Data sets in their published layouts, of empty files, and a table of face crops."""

import io
import json

import pytest
from PIL import Image

from worker.training.data.datasets import read_dataset


def place(root, *names):
    """Readers do not decode, so empty files will do."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def read(kind, root):
    media = list(read_dataset(kind, root))
    assert len({medium.key for medium in media}) == len(media)
    assert all(medium.path.exists() for medium in media)
    return {medium.key: medium for medium in media}


@pytest.fixture
def dfdc(tmp_path):
    root = tmp_path / "dfdc"
    for part, prefix in (("dfdc_train_part_0", "a"), ("dfdc_train_part_1", "b")):
        place(root / part, f"{prefix}real.mp4", f"{prefix}fake.mp4", f"{prefix}lost.mp4")
        content = {
            f"{prefix}fake.mp4": {"label": "FAKE", "split": "train", "original": f"{prefix}real.mp4"},
            f"{prefix}real.mp4": {"label": "REAL", "split": "train"},
            f"{prefix}lost.mp4": {"label": "REAL", "split": "train", "original": None},
            f"{prefix}absent.mp4": {"label": "FAKE", "split": "train", "original": f"{prefix}real.mp4"},
        }
        write(root / part / "metadata.json", content)
    return root


@pytest.fixture
def dfdc_preview(tmp_path):
    root = tmp_path / "preview"
    entries = {
        "original_videos/11/11_A_001.mp4": {"label": "real", "set": "train", "target_id": 11, "swapped_id": None},
        "original_videos/12/12_A_001.mp4": {"label": "real", "set": "train", "augmentations": []},
        "original_videos/13/13_A_001.mp4": {"label": "real", "set": "train", "target_id": 13},
        "original_videos/20/20_A_001.mp4": {"label": "real", "set": "test", "target_id": 20},
        "method_A/11/11_A/11_12_A_001.mp4": {"label": "fake", "set": "train", "target_id": 11, "swapped_id": 12},
        "method_B/20/20_B/20_21_B_002.mp4": {"label": "fake", "set": "test", "target_id": 20, "swapped_id": 21},
    }
    place(root, *entries)
    entries["method_A/99/99_A/99_98_A_001.mp4"] = {"label": "fake", "set": "train", "target_id": 99}
    write(root / "dataset.json", entries)
    return root


@pytest.fixture
def faceforensics(tmp_path):
    root = tmp_path / "ff"
    for compression in ("raw", "c0", "c23", "c40"):
        place(root / f"original_sequences/youtube/{compression}/videos", *(f"{n:03d}.mp4" for n in range(6)))
        for method in ("Deepfakes", "Face2Face", "FaceShifter", "FaceSwap", "NeuralTextures"):
            pairs = ("000_003", "003_000", "001_004", "004_001", "002_005", "005_002")
            place(root / f"manipulated_sequences/{method}/{compression}/videos", *(f"{pair}.mp4" for pair in pairs))
    place(root, "original_sequences/actors/c23/videos/01__exit_phone_room.mp4")
    place(root, "original_sequences/youtube/c23/images/000/0000.png")
    place(root, "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4")
    place(root, "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4")
    return root


@pytest.fixture
def celeb_df(tmp_path):
    root = tmp_path / "celeb"
    place(root / "Celeb-real", "id0_0000.mp4", "id0_0001.mp4", "id1_0000.mp4", "id2_0000.mp4", "id7_0000.mp4")
    place(root / "YouTube-real", "00000.mp4", "00170.mp4")
    place(root / "Celeb-synthesis", "id0_id1_0000.mp4", "id1_id2_0000.mp4", "id7_id8_0000.mp4", "id8_id7_0003.mp4")
    return root


def list_tests(root, *lines):
    (root / "List_of_testing_videos.txt").write_text("".join(f"{line}\n" for line in lines))


def encoded(kind="JPEG"):
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, kind)
    return file.getvalue()


@pytest.fixture
def face_crops(tmp_path):
    """Writes a folder of pictures, named in the first column of the lines of its table, and returns it."""

    def write(*lines, columns="file,label,original,group", pictures=None):
        root = tmp_path / "crops224"
        root.mkdir()
        for name in pictures or [line.split(",")[0] for line in lines]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(encoded("PNG" if name.endswith(".png") else "JPEG"))
        (root / "metadata.csv").write_text("\n".join([columns, *lines]) + "\n")
        return root

    return write


def assert_undivided(media):
    sets = {}
    for medium in media:
        assert sets.setdefault((medium.dataset, medium.group), medium.set) == medium.set
