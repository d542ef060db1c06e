"""The command that serves assistants by the Model Context Protocol."""

import asyncio
from pathlib import Path

import click

from deepfakestream.client import AsyncClient
from deepfakestream.connection import find_connection


@click.command()
@click.option(
    "--folder",
    "folders",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    envvar="DEEPFAKESTREAM_MCP_FOLDERS",
    help="Folder whose images and videos may be scanned, with those below it; repeatable. Otherwise"
    " DEEPFAKESTREAM_MCP_FOLDERS, separated as in PATH; without any, only addresses are scanned.",
    show_default=False,
)
@click.pass_context
def mcp(context: click.Context, folders: tuple[Path, ...]) -> None:
    """
    Serve assistants by the Model Context Protocol, on standard input and output.

    An assistant's configuration names this command. Its tools are scan_media, get_job, explain_verdict and list_jobs.
    """
    try:
        from deepfakestream.mcp_server import make_server
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise click.ClickException(
            "this needs the package 'mcp': run pip install './client[mcp]' in a checkout of the project"
        ) from error
    settings = context.find_root().obj

    def connect() -> AsyncClient:
        found = find_connection(settings["url"], settings["api_key"], settings["state"])
        return AsyncClient(found.url, found.api_key)

    asyncio.run(make_server(connect, folders).run_stdio_async())
