"""A small crop cache as others publish them: JPEG pictures in two folders, whose people have their sets already."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.unit.worker.training.conftest import ASTRONAUT, HOPPER
from worker.detection.faces import crop_face, square_around

SIDE_PX = 160
MARGIN = 0.3
GROUPS = {"train": ("part-0", "part-1", "part-2"), "validation": ("part-8", "part-9")}


def make_ready(root: Path) -> Path:
    """Lay the cache out in *root*: a real picture and a darker fake of it for each group."""
    for name, groups in GROUPS.items():
        folder = root / name
        folder.mkdir(parents=True)
        rows: list[dict[str, Any]] = []
        with tarfile.open(folder / "00000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, group in enumerate(groups):
                portrait = (ASTRONAUT, HOPPER)[number % 2]
                x, y, side = square_around(portrait.box, MARGIN)
                scale = SIDE_PX / side
                picture = crop_face(portrait.picture, portrait.box, size_px=SIDE_PX, margin=MARGIN)
                left, top, right, bottom = portrait.box
                box = [round(value * scale, 2) for value in (left - x, top - y, right - x, bottom - y)]
                marks = [[round((a - x) * scale, 2), round((b - y) * scale, 2)] for a, b in portrait.landmarks]
                for label, brightness in (("real", 1.0), ("fake", 1 / 3)):
                    shown = (picture * brightness).astype(np.uint8)
                    data = cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))[1].tobytes()
                    header = tarfile.TarInfo(f"{len(rows)}.jpg")
                    header.size = len(data)
                    offset = tar.offset + tarfile.BLOCKSIZE
                    tar.addfile(header, io.BytesIO(data))
                    row = {"shard": "00000", "offset": offset, "length": len(data), "key": f"{group}-{label}"}
                    row |= {"label": label, "dataset": "ready", "group": group, "set": name, "method": ""}
                    row |= {"compression": "", "original": f"{group}-real" if label == "fake" else ""}
                    row |= {"is_video": True, "time_s": 0.0, "box_px": box, "landmarks_px": marks}
                    rows.append({**row, "frame_box_px": box, "size_px": 80.0, "sharpness": 100.0})
        write_rows(folder, rows)
    return root


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The index in one of its folders."""
    return [json.loads(line) for line in (folder / "00000.jsonl").read_text().splitlines()]


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write that index."""
    (folder / "00000.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
