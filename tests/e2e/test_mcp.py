"""The server of the Model Context Protocol, driven by the official client over stdio, against the running service."""

import asyncio
import functools
import os
import re
import sys
from pathlib import Path

import pytest
from mcp import Client as Assistant
from mcp import StdioServerParameters

from tests.clips import make_clip, noise_picture
from tests.unit.worker.explain.conftest import swapped_portrait

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(Path(sys.executable).with_name("deepfakestream"))
UNKNOWN = "00000000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A folder that may be read, beside a file that may not."""
    folder = tmp_path_factory.mktemp("mcp") / "media"
    folder.mkdir()
    make_clip(folder / "one.mp4", fps=2.0, seconds=2.0, size=(640, 360), faces=(swapped_portrait(),))
    (folder / "noise.jpg").write_bytes(noise_picture(5))
    (folder / "notes.txt").write_text("a secret of the person who runs the server\n" * 99)
    (folder.parent / "outside.jpg").write_bytes(noise_picture(6))
    (folder / "link.jpg").symlink_to(folder.parent / "outside.jpg")
    return folder


def assisted(test):
    """Run a coroutine function as a test."""

    @functools.wraps(test)
    def run(**fixtures):
        asyncio.run(test(**fixtures))

    return run


def serving(*arguments, **environment):
    """Return the official client of a server that is started with these arguments."""
    path = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    return Assistant(
        StdioServerParameters(command=PROGRAM, args=[*map(str, arguments)], env=path | environment, cwd=ROOT)
    )


async def said(assistant, tool, **arguments):
    """Return what a tool said, and whether that is an error."""
    result = await assistant.call_tool(tool, arguments)
    [content] = result.content
    return content.text, bool(result.is_error)


@assisted
async def test_an_assistant_scans_asks_again_and_explains(stack, media):
    async with serving("--state", stack.state, "mcp", "--folder", media) as assistant:
        assert "say its limits" in assistant.instructions
        tools = {tool.name: tool for tool in (await assistant.list_tools()).tools}
        assert set(tools) == {"scan_media", "get_job", "explain_verdict", "list_jobs"}
        assert all(tool.description for tool in tools.values())
        assert [name for name, tool in tools.items() if not tool.annotations.read_only_hint] == ["scan_media"]

        scanned, is_error = await said(assistant, "scan_media", source=str(media / "one.mp4"), wait_s=120)
        assert not is_error
        job_id = re.search(r"Job (\S+) is succeeded\.", scanned)[1]
        verdict = re.search(r"The verdict is (\w+): ", scanned)[1]
        assert "These limits rest on" in scanned
        assert "neither the probability" in scanned
        assert "Only swapped faces are looked for" in scanned
        assert scanned.endswith("They help to decide where to look, and are not proof.")

        state, _ = await said(assistant, "get_job", job_id=job_id)
        assert scanned.startswith(state)
        assert await said(assistant, "explain_verdict", job_id=job_id) == (scanned, False)
        listed, _ = await said(assistant, "list_jobs", limit=1, status="succeeded")
        assert re.match(rf"{job_id}  \S+ \S+ UTC  succeeded  {verdict}  [\d.]+ of 100\n", listed)

        begun, _ = await said(assistant, "scan_media", source="noise.jpg", wait_s=0)
        assert "get_job returns its state" in begun


@assisted
async def test_every_error_is_a_sentence_and_no_other_file_is_sent(stack, media):
    outside = str(media.parent / "outside.jpg")
    sources = {
        outside: "is in none of the folders whose files may be read",
        str(media / "link.jpg"): "is in none of the folders",
        "../outside.jpg": "is in none of the folders",
        str(media.parent / "missing.jpg"): "is in none of the folders",
        "/etc/passwd": "is in none of the folders",
        "notes.txt": "it is text, neither an image nor a video, so it was not sent",
        "missing.jpg": "No such file or directory",
        "rtsp://camera.example/hall": "only addresses that begin with http:// or https:// are fetched",
        "http://user:password@a.example/x.mp4": "",
    }
    async with serving("--state", stack.state, "mcp", "--folder", media) as assistant:
        for source, sentence in sources.items():
            text, is_error = await said(assistant, "scan_media", source=source)
            assert is_error, source
            assert sentence in text
            assert "Traceback" not in text
            assert "\n" not in text
        for tool in ("get_job", "explain_verdict"):
            text, is_error = await said(assistant, tool, job_id=UNKNOWN)
            assert (is_error, "not_found" in text) == (True, True)
        text, is_error = await said(assistant, "list_jobs", limit=0)
        assert is_error
        assert "limit" in text


@assisted
async def test_without_a_folder_only_addresses_are_scanned(stack, media):
    async with serving("--state", stack.state, "mcp") as assistant:
        text, is_error = await said(assistant, "scan_media", source=str(media / "noise.jpg"))
    assert is_error
    assert "start the server with --folder FOLDER" in text


@assisted
async def test_a_service_may_start_later_than_the_server(media, tmp_path):
    folders = {"DEEPFAKESTREAM_MCP_FOLDERS": f"{media}{os.pathsep}{tmp_path}"}
    async with serving("--state", tmp_path / "none", "mcp", **folders) as assistant:
        text, is_error = await said(assistant, "list_jobs")
        assert is_error
        assert "no service to talk to" in text
        text, _ = await said(assistant, "scan_media", source="../outside.jpg")
        assert "no service to talk to" in text
