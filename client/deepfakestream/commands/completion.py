"""The command that prints what makes a shell complete commands, options and files."""

import click
from click.shell_completion import get_completion_class

from deepfakestream.terminal import say

PROGRAM = "deepfakestream"
VARIABLE = "_DEEPFAKESTREAM_COMPLETE"
"""Variable by which click's scripts ask the program for completions."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    r"""
    Print the script by which a shell completes commands, options and files.

    \b
    bash: echo 'eval "$(deepfakestream completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(deepfakestream completion zsh)"' >> ~/.zshrc
    fish: deepfakestream completion fish > ~/.config/fish/completions/deepfakestream.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"this release of click has no completion for {shell}: update click")
    say(found(context.find_root().command, {}, PROGRAM, VARIABLE).source())
