"""Uploads are streamed: the memory of the api does not grow with their size."""

import re
import struct
from pathlib import Path

import httpx
import pytest

from tests.inside import children_of, service_of

MEBIBYTE = 1024**2
BOUNDARY = "boundary-of-the-test"


def peak_kib(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def resident_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def large_video(clip, size):
    """Return a real clip that a padding box extends to *size* bytes."""
    content = clip.read_bytes()
    padding = size - len(content)
    yield content
    yield struct.pack(">I4sQ", 1, b"free", padding)
    left = padding - 16
    block = bytes(MEBIBYTE)
    while left > 0:
        yield block[:left]
        left -= min(left, MEBIBYTE)


def submit_directly(stack, headers, content, size):
    """Send *content* as a direct upload and submit it; return the id of the job."""
    with httpx.Client(base_url=stack.url, trust_env=False, timeout=250) as http:
        upload = http.post("/v1/uploads", json={"size_bytes": size}, headers=headers).json()
        assert http.put(upload["url"], content=content, headers=upload["headers"]).status_code == 200
        answer = http.post("/v1/jobs", json={"upload_id": upload["id"]}, headers=headers)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]


SIZES = [256 * MEBIBYTE, pytest.param(2047 * MEBIBYTE, marks=pytest.mark.merge)]
"""Sizes of several times the allowed growth of memory, and of the largest upload."""


@pytest.mark.timeout(280)
@pytest.mark.parametrize("size", SIZES, ids=["256 MB", "2 GB"])
@pytest.mark.parametrize("form", ["raw", "multipart", pytest.param("direct", marks=pytest.mark.merge)])
def test_a_large_upload_does_not_raise_the_memory_by_50_mb(stack, client, clip, form, size):
    # The first request loads modules that every request needs.
    client.delete(client.submit(clip).id)
    pids = children_of(service_of(stack, "api"))
    before = {pid: resident_kib(pid) for pid in pids}
    for pid in pids:
        # 5 resets the high-water mark; proc(5).
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    headers = {"Authorization": f"Bearer {stack.api_key_file.read_text().strip()}"}
    content = large_video(clip, size)
    if form == "direct":
        job = submit_directly(stack, headers, content, size)
        assert max(peak_kib(pid) - before[pid] for pid in pids) < 50 * 1024
        client.delete(job)
        return
    if form == "raw":
        headers |= {"Content-Type": "video/mp4", "Content-Length": str(size)}
    else:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'.encode()
        tail = f"\r\n--{BOUNDARY}--\r\n".encode()
        headers |= {
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            "Content-Length": str(len(head) + size + len(tail)),
        }
        content = (block for part in ([head], content, [tail]) for block in part)
    answer = httpx.post(f"{stack.url}/v1/jobs", content=content, headers=headers, trust_env=False, timeout=250)
    assert answer.status_code == 202, answer.text
    assert answer.json()["media"]["size_bytes"] == size
    assert max(peak_kib(pid) - before[pid] for pid in pids) < 50 * 1024
    client.delete(answer.json()["id"])
