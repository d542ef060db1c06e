import click
import pytest

from shared.commands import SETTINGS, CommandError, FailedCommandError, run


@click.command(context_settings=SETTINGS)
@click.argument("fate")
@click.option("--count", default=3, help="How many.")
def command(fate, count):
    if fate == "error":
        raise CommandError("the thing is missing: make one")
    if fate == "failure":
        raise FailedCommandError("it broke: mend it")
    if fate == "status":
        click.get_current_context().exit(count)
    if fate == "nothing":
        raise SystemExit
    click.echo(f"done {count}")


@pytest.mark.parametrize(
    ("arguments", "status", "out", "err"),
    [
        (["well"], 0, "done 3\n", ""),
        (["error"], 2, "", "the thing is missing: make one\n"),
        (["failure"], 1, "", "it broke: mend it\n"),
        (["status", "--count", "5"], 5, "", ""),
        (["nothing"], 0, "", ""),
    ],
)
def test_a_command_ends_with_its_status_and_message(capsys, arguments, status, out, err):
    assert run(command, arguments, "python -m x") == status
    assert tuple(capsys.readouterr()) == (out, err)


def test_a_usage_error_names_the_program_and_has_status_2(capsys):
    assert run(command, ["well", "--cuont", "3"], "python -m x") == 2
    output = capsys.readouterr().err
    assert output.startswith("Usage: python -m x [OPTIONS] FATE\n")
    assert "--cuont" in output


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_two_options_and_shows_defaults(capsys, option):
    assert run(command, [option], "python -m x") == 0
    assert "How many.  [default: 3]" in capsys.readouterr().out
