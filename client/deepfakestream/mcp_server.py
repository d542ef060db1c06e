"""
A server of the Model Context Protocol, by which assistants scan media with a service.

It needs the extra ``mcp``; ``deepfakestream.commands.mcp`` imports it when it is asked for. Every error of a tool is a
sentence that says what to do. Tools return words, and none that the author of media wrote: file names, metadata and
Content Credentials could address the model that reads them.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final, Literal

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from deepfakestream.client import AsyncClient
from deepfakestream.drivers import AsyncioDriver
from deepfakestream.errors import DeepfakeStreamError, WaitTimeoutError
from deepfakestream.folders import open_permitted
from deepfakestream.results import Job
from deepfakestream.sources import Source, check_scheme, is_url
from deepfakestream.terminal import printable
from deepfakestream.wording import CLOSING, describe_state, explain_verdict, points

INSTRUCTIONS: Final = (
    "Tells whether a face in an image or a video was swapped. Scores are estimates from 0 to 100, where 100 means"
    " swapped, and neither probabilities nor proof. When you pass on a verdict, say its limits as well, which the tool"
    " explain_verdict returns."
)
POLL_S: Final = 0.5

JobId = Annotated[str, Field(description="Id of a job, from scan_media or list_jobs.", max_length=100)]
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]


def make_server(connect: Callable[[], AsyncClient], folders: Sequence[Path]) -> MCPServer:
    """
    Make the server with its tools.

    Args:
        connect: Returns a new client; called for each use of a tool, so that a service may start later than the server.
        folders: Folders whose files may be scanned; addresses alone if there are none.
    """
    server = MCPServer(
        "deepfakestream", version=version("deepfakestream"), instructions=INSTRUCTIONS, log_level="WARNING"
    )
    tools = _Tools(connect, folders)
    for tool in (tools.scan_media, tools.get_job, tools.explain_verdict, tools.list_jobs):
        is_reading = tool != tools.scan_media
        server.tool(
            annotations=ToolAnnotations(read_only_hint=is_reading, destructive_hint=False), structured_output=False
        )(tool)
    return server


class _Tools:
    """The tools; their signatures and docstrings are what an assistant is shown."""

    def __init__(self, connect: Callable[[], AsyncClient], folders: Sequence[Path]) -> None:
        self._connect = connect
        self._folders = folders

    async def scan_media(
        self,
        source: Annotated[
            str,
            Field(description="Path of an image or a video in a folder that may be read, or an https:// address."),
        ],
        context: Context,
        wait_s: Annotated[float, Field(description="Seconds to wait for the result.", ge=0, le=600)] = 45.0,
    ) -> str:
        """Scan an image or a video for swapped faces: sends it to the service, waits, and returns the verdict."""
        async with self._service() as client:
            with await AsyncioDriver().call(self._open, source) as media:
                job = await client.submit(media)
            if wait_s > 0:
                with suppress(WaitTimeoutError):
                    async for state in client.progress(job.id, timeout_s=wait_s, poll_s=POLL_S):
                        job = state
                        await context.report_progress(state.fraction, 1.0, state.status)
            if job.is_final:
                return explain_verdict(job)
            return f"{describe_state(job)}\nIt goes on; get_job returns its state, and explain_verdict its verdict."

    async def get_job(self, job_id: JobId) -> str:
        """Get the state of a job and, once it has ended, its verdict and score."""
        async with self._service() as client:
            return describe_state(await client.get(job_id))

    async def explain_verdict(self, job_id: JobId) -> str:
        """Explain the verdict of a job in words: what it means, why, where to look, and what it does not mean."""
        async with self._service() as client:
            return explain_verdict(await client.get(job_id))

    async def list_jobs(
        self,
        limit: Annotated[int, Field(description="The most jobs to list.", ge=1, le=100)] = 10,
        status: Annotated[Status | None, Field(description="List only jobs with this status.")] = None,
    ) -> str:
        """List recent jobs, newest first, a line each: id, date, status, verdict and mean score."""
        async with self._service() as client:
            lines = [_summarise(job) async for job in client.list(status=status, limit=limit)]
        return "\n".join([*lines, CLOSING]) if lines else "There are no such jobs."

    def _open(self, source: str) -> AbstractContextManager[Source]:
        """Return the address, or the file if it may be read."""
        if is_url(source):
            return nullcontext(source)
        check_scheme(source)
        return open_permitted(source, self._folders)

    @asynccontextmanager
    async def _service(self) -> AsyncIterator[AsyncClient]:
        """Open a client; errors become those of a tool, whose text the assistant reads."""
        try:
            async with self._connect() as client:
                yield client
        except DeepfakeStreamError as error:
            raise ToolError(str(error)) from error
        except OSError as error:
            # Those that this package raises itself have a sentence alone.
            raise ToolError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error


def _summarise(job: Job) -> str:
    verdict = "" if job.verdict is None else f"  {job.verdict}"
    score = "" if job.fake_score is None else f"  {points(job.fake_score)} of 100"
    return printable(f"{job.id}  {job.created_at:%Y-%m-%d %H:%M} UTC  {job.status}{verdict}{score}")
