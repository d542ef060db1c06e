"""Documents of explanations, as the service answers them."""

from tests.unit.client.services import job

IMAGE = b"RIFF\x04\0\0\0WEBP"
PLACE = {"segment": 0, "time_s": 61.5, "box_px": [1.0, 2.0, 3.0, 4.0], "turned_deg": 0}
NOT_REQUESTED = "no explanation of this job was requested"


def explained_person(number=0, **changes):
    names = {kind: f"person-{number}-{kind}.webp" for kind in ("crop", "map", "overlay")}
    thumbnail = {**PLACE, "time_s": 1.0, "fake_score": 0.25, "image": f"person-{number}-thumbnail-0.webp"}
    return {
        **PLACE,
        "person": number,
        "face_score": 0.93,
        "explained_score": 0.92,
        "score_without_hottest_tenth": 0.41,
        "explains": True,
        "images": names,
        "thumbnails": [thumbnail],
    } | changes


def names_of(person):
    return [*person["images"].values(), *(each["image"] for each in person["thumbnails"])]


def explanation(status="succeeded", *people, **changes):
    images = [{"name": name, "size_bytes": len(IMAGE), "sha256": "0" * 64} for one in people for name in names_of(one)]
    return {
        "job_id": job()["id"],
        "status": status,
        "created_at": "2026-01-02T03:04:05.678Z",
        "finished_at": None,
        "error": None,
        "images_stored": bool(images),
        "note": "How to read a map." if people else None,
        "model": {"name": "swap-lite2", "version": "1.0.0", "weights_sha256": "1" * 64} if people else None,
        "people": [*people],
        "images": images,
        "added_by_a_newer_service": True,
    } | changes


def image_answer(data=IMAGE, kind="image/webp"):
    return 200, {"Content-Type": kind}, data
