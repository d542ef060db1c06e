"""Uploads stream: however large, the API's memory stays where it was."""

import re
import struct
from pathlib import Path

import httpx
import pytest

MEBIBYTE = 1024**2
BOUNDARY = "boundary-of-the-test"


def processes(stack):
    """The api's worker processes."""
    pid = next(service for service in stack._services if service.name == "api").process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def peak_kib(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def resident_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def large_video(clip, size):
    """A real clip, followed by a box of padding that makes it *size* bytes long."""
    content = clip.read_bytes()
    padding = size - len(content)
    yield content
    yield struct.pack(">I4sQ", 1, b"free", padding)
    left = padding - 16
    block = bytes(MEBIBYTE)
    while left > 0:
        yield block[:left]
        left -= min(left, MEBIBYTE)


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize(("form", "size"), [("raw", 2047 * MEBIBYTE), ("multipart", 2047 * MEBIBYTE)])
def test_a_2_gb_upload_does_not_raise_the_memory_by_50_mb(stack, client, clip, form, size):
    # The first request loads what every request needs.
    client.delete(client.submit(clip).id)
    pids = processes(stack)
    before = {pid: resident_kib(pid) for pid in pids}
    for pid in pids:
        # 5 resets the high-water mark; proc(5).
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    headers = {"Authorization": f"Bearer {stack.api_key_file.read_text().strip()}"}
    content = large_video(clip, size)
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
