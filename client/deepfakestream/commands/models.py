"""The command that lists checkpoints."""

import json
import os
from typing import Any

import click

from deepfakestream.checkpoints import find_checkpoints
from deepfakestream.commands.context import connect, shown_errors
from deepfakestream.connection import URL_VARIABLE
from deepfakestream.terminal import say


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option(
    "--card",
    is_flag=True,
    help="Print the model cards as well: what the checkpoints are good for, and where they fail.",
)
@click.option("--model", "name", help="List only the checkpoint with this name.")
@click.pass_context
def models(context: click.Context, as_json: bool, card: bool, name: str | None) -> None:
    """List the checkpoints that a job can name, the default one first."""
    settings = context.find_root().obj

    def request_models() -> tuple[dict[str, Any], ...]:
        with connect(context) as client:
            return client.models()

    is_named = bool(settings["url"] or os.environ.get(URL_VARIABLE))
    with shown_errors():
        found, is_local = find_checkpoints(request_models, may_be_local=not is_named)
    if is_local:
        say("no service answers; these are the checkpoints that are installed here", to_stderr=True)
    chosen = [model for model in found if name is None or model.get("name") == name]
    if not chosen:
        raise click.BadParameter(
            f"unknown model {name!r}; available: {', '.join(str(model.get('name')) for model in found)}",
            param_hint="--model",
        )
    for model in chosen:
        if as_json:
            say(json.dumps(model))
            continue
        marks = "trained" if model.get("trained") else "untrained"
        default = ", default" if model.get("is_default") else ""
        say(f"{model.get('name')} {model.get('version')} ({marks}{default})")
        if card:
            say(f"\n{model.get('model_card')}")
