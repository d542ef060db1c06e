"""What tests reach of a running stack beyond its public names: its processes, and the stores that they share."""

from pathlib import Path

import psycopg
import redis

from api.embedded.processes import Service
from api.embedded.stack import EmbeddedStack


def service_of(stack: EmbeddedStack, name: str) -> Service:
    """The one of that name, such as ``worker-gpu``."""
    return next(service for service in stack._services if service.name == name)


def children_of(service: Service) -> list[int]:
    """The processes that a service has started itself."""
    assert service.process is not None
    pid = service.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def environment_of(stack: EmbeddedStack) -> dict[str, str]:
    """How every service is configured."""
    return stack._services[-1]._environment


def postgres_uri(stack: EmbeddedStack) -> str:
    """Address of the database, as libpq takes it."""
    return str(stack._postgres._server.get_uri())


def postgres_of(stack: EmbeddedStack) -> psycopg.Connection:
    """A connection to the database on which every statement counts at once."""
    return psycopg.connect(postgres_uri(stack), autocommit=True)


def redis_of(stack: EmbeddedStack) -> redis.Redis:
    """A connection to Redis."""
    return redis.Redis(unix_socket_path=str(stack._redis.socket))
