"""
The effective settings: each with its value and where that comes from, and every mistake in them.

Found by the command line as ``deepfakestream config``; also ``python -m shared.effective_settings``. The services name
their settings as entry points, since this package imports neither.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Literal

import click
from pydantic import BaseModel, SecretStr
from pydantic_settings import (
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    NestedSecretsSettingsSource,
    SecretsSettingsSource,
    YamlConfigSettingsSource,
)

from shared.commands import SETTINGS
from shared.config import (
    CONFIG_VARIABLE,
    SECRETS_VARIABLE,
    SECTIONS,
    ConfigurationError,
    SharedSettings,
    load_settings,
)

Source = Literal["environment", "secrets", "file", "default"]
SETTINGS_GROUP: Final = "deepfakestream.settings"
"""Entry points by which each service names the class of its settings."""
PREFIX: Final = "DEEPFAKESTREAM_"
DELIMITER: Final = "__"
OTHER_VARIABLES: Final = frozenset(
    {
        CONFIG_VARIABLE,
        SECRETS_VARIABLE,
        *("DEEPFAKESTREAM_API_KEY", "DEEPFAKESTREAM_MCP_FOLDERS", "DEEPFAKESTREAM_STATE", "DEEPFAKESTREAM_URL"),
        *("DEEPFAKESTREAM_CHROMIUM_REQUIRED", "DEEPFAKESTREAM_HISTORY_REQUIRED"),
        *("DEEPFAKESTREAM_TOOLS_REQUIRED", "DEEPFAKESTREAM_TEST_DATABASE_URL", "DEEPFAKESTREAM_TEST_REDIS_SERVER"),
    }
)
"""Variables with the prefix that are no settings: those that name sources, of the command line, and of tests."""
MASK: Final = "********"
_OF_A_SERVICE: Final = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_[0-9]+_(TCP|UDP).*)?$")
_PASSWORD_IN_ADDRESS: Final = re.compile(r"(?<=://)([^:/?#@]*):.*@")
_SECRET_IN_QUERY: Final = re.compile(r"(?i)([?&][^=&]*(?:password|secret|token|key|credential|signature)[^=&]*)=[^&]*")


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """One setting as a service sees it."""

    name: str
    """The full name, such as ``database.url``."""
    value: Any
    """As JSON, with secrets masked."""
    source: Source
    services: tuple[str, ...]
    """The services that have the setting."""

    def to_json(self) -> dict[str, Any]:
        """Return value, source and services as JSON."""
        return {"value": self.value, "source": self.source, "services": list(self.services)}


def find_effective(types: dict[str, type[SharedSettings]]) -> list[EffectiveSetting]:
    """
    Load the settings of all services and find where each value comes from.

    Args:
        types: Name of a service → class of its settings.

    Returns:
        Each setting once, by section and in the order of their definition.

    Raises:
        ConfigurationError: Settings are missing, unknown or invalid for a service; the message names them all, with
            variables and files of secrets that belong to no section.
    """
    problems: dict[str, None] = dict.fromkeys(find_strays())
    loaded: dict[str, SharedSettings] = {}
    for service, settings_type in types.items():
        try:
            loaded[service] = load_settings(settings_type)
        except ConfigurationError as error:
            problems |= dict.fromkeys(line.strip() for line in str(error).splitlines()[1:])
    if problems:
        raise ConfigurationError("\n".join(["invalid configuration:", *(f"  {problem}" for problem in problems)]))
    found: dict[str, EffectiveSetting] = {}
    for service, settings in loaded.items():
        given = _given_names(type(settings))
        for name, value in _flatten(settings):
            services = (*found[name].services, service) if name in found else (service,)
            found[name] = EffectiveSetting(name, _shown(value), _source_of(name, given), services)
    return list(found.values())


def find_strays() -> list[str]:
    """Return a sentence for each variable and each file of the folder of secrets that belongs to no section."""
    variables = [
        name for name in sorted(os.environ) if name.upper().startswith(PREFIX) and name.upper() not in OTHER_VARIABLES
    ]
    # Kubernetes describes each Service by variables of its name in capitals.
    variables = [name for name in variables if not _OF_A_SERVICE.search(name)]
    strays = [f"{name}: no such setting" for name in variables if _section_of(name[len(PREFIX) :]) not in SECTIONS]
    folder = os.environ.get(SECRETS_VARIABLE)
    if folder and Path(folder).is_dir():
        # Orchestrators keep the files in hidden folders and link to them.
        names = sorted(file.name for file in Path(folder).iterdir() if not file.name.startswith("."))
        strays += [
            f"{SECRETS_VARIABLE}, file {name}: no such setting" for name in names if _section_of(name) not in SECTIONS
        ]
    return strays


def _section_of(name: str) -> str:
    return name.lower().partition(DELIMITER)[0]


def _given_names(settings_type: type[SharedSettings]) -> list[tuple[Source, set[str]]]:
    """Return each source with the full names that it gives, those that win first."""
    sources = settings_type.settings_customise_sources(
        settings_type,
        InitSettingsSource(settings_type, {}),
        EnvSettingsSource(settings_type),
        DotEnvSettingsSource(settings_type, env_file=None),
        SecretsSettingsSource(settings_type),
    )
    kinds: tuple[tuple[type, Source], ...] = (
        # This one is a subclass of the next.
        (NestedSecretsSettingsSource, "secrets"),
        (EnvSettingsSource, "environment"),
        (YamlConfigSettingsSource, "file"),
    )
    return [
        (kind, set(_names(source())))
        for source in sources
        for kind in [next((kind for source_type, kind in kinds if isinstance(source, source_type)), None)]
        if kind is not None
    ]


def _names(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        full = f"{prefix}{name}".lower()
        yield full
        if isinstance(value, dict):
            yield from _names(value, f"{full}.")


def _source_of(name: str, given: list[tuple[Source, set[str]]]) -> Source:
    return next((source for source, names in given if name in names), "default")


def _flatten(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> Any:
    """Return *value* as JSON, without secrets and passwords."""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, list | tuple):
        return [_shown(each) for each in value]
    if isinstance(value, str | Path):
        return mask_address(str(value))
    return value


def mask_address(text: str) -> str:
    """Mask the password in an address, and secrets in its query; the user's name stays."""
    return _SECRET_IN_QUERY.sub(rf"\1={MASK}", _PASSWORD_IN_ADDRESS.sub(rf"\1:{MASK}@", text))


def installed_types() -> dict[str, type[SharedSettings]]:
    """Return the classes of settings of the services that are installed, by the name of the service."""
    return {
        found.name: found.load() for found in sorted(entry_points(group=SETTINGS_GROUP), key=lambda each: each.name)
    }


def describe(settings: Iterable[EffectiveSetting]) -> str:
    """Return a line for each setting: its name, its value as JSON, and its source."""
    listed = list(settings)
    width = max((len(setting.name) for setting in listed), default=0)
    values = [json.dumps(setting.value) for setting in listed]
    return "\n".join(
        f"{setting.source:<11} {setting.name:<{width}} {value}" for setting, value in zip(listed, values, strict=True)
    )


@click.group("config", context_settings=SETTINGS)
def commands() -> None:
    """Look at the configuration of the services."""


@commands.command("check")
@click.option("--service", "services", multiple=True, help="Only settings of api or of worker; repeatable.")
@click.option("--changed", is_flag=True, help="Print only settings that a file, a secret or the environment gives.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(services: tuple[str, ...], changed: bool, as_json: bool) -> None:
    """
    Print the effective settings, each with where it comes from, or all mistakes in them.

    Secrets and passwords are masked. The exit status is 1 if a setting is missing, unknown or invalid for a service.
    """
    types = installed_types()
    if unknown := sorted(set(services) - types.keys()):
        raise click.BadParameter(f"no service {unknown[0]!r}; there are {', '.join(types)}", param_hint="--service")
    try:
        found = find_effective({name: types[name] for name in types if not services or name in services})
    except ConfigurationError as error:
        if as_json:
            problems = [line.strip() for line in str(error).splitlines()[1:]]
            click.echo(json.dumps({"is_valid": False, "problems": problems}))
            raise click.exceptions.Exit(1) from error
        raise click.ClickException(str(error)) from error
    shown = [setting for setting in found if not changed or setting.source != "default"]
    if as_json:
        document = {setting.name: setting.to_json() for setting in shown}
        click.echo(json.dumps({"is_valid": True, "file": os.environ.get(CONFIG_VARIABLE), "settings": document}))
        return
    click.echo(f"file: {os.environ.get(CONFIG_VARIABLE) or 'none'}", err=True)
    click.echo(describe(shown))


if __name__ == "__main__":
    sys.exit(commands())
