"""The crop of a face that was scored, cut again from its frame."""

import numpy as np
from numpy.typing import NDArray

from shared.manifests import Preprocessing
from worker.detection.faces import DetectedFace, crop_face
from worker.detection.orientation import turn, turn_back
from worker.media.decoding import Frame
from worker.pipeline.results import FaceResult

QUARTER_DEG = 90
QUARTERS = 4


def cut_face(frame: Frame, face: FaceResult, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """
    Cut the crop of *face* as the network saw it.

    Results are stored with boxes rounded to tenths of a pixel, so a face that was read from JSON may be cut one pixel
    beside the crop that was scored.

    Args:
        frame: The frame in which the face was found.
        preprocessing: That of the checkpoint by which it was scored.

    Returns:
        (S, S, 3) uint8 RGB, S as *preprocessing* says.
    """
    across, down = frame.scale
    left, top, right, bottom = face.box_px
    displayed = DetectedFace((left / across, top / down, right / across, bottom / down), (), face.confidence)
    quarters = face.turned_deg // QUARTER_DEG
    picture = turn(frame.pixels, quarters)
    height, width = picture.shape[:2]
    # Seen from the picture that was turned, the frame is the turned one.
    upright = turn_back(displayed, (QUARTERS - quarters) % QUARTERS, width, height)
    return crop_face(picture, upright.box_px, size_px=preprocessing.crop_size_px, margin=preprocessing.crop_margin)
