"""Flower, the operators' view of the queue, with a password on every path."""

import hmac
import os
from base64 import b64encode
from typing import Any

import flower.command
from flower.app import Flower
from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from shared.commands import CommandError
from shared.queues import make_celery
from worker.config import WorkerSettings


class LockedFlower(Flower):  # type: ignore[misc]
    """
    Flower that asks for its password wherever Flower itself does not: for metrics, static files and unknown paths.

    Only the health check answers without it, to tell whether the process serves; it reports nothing else.
    """

    def find_handler(self, request: HTTPServerRequest, **options: Any) -> Any:
        """Return the handler of *request*, or the one that refuses it."""
        prefix = (self.options.url_prefix or "").strip("/")
        is_probe = request.path == (f"/{prefix}/healthcheck" if prefix else "/healthcheck")
        if is_probe or self._knows_password(request):
            return super().find_handler(request, **options)
        return self.get_handler_delegate(request, _Refusal)

    def _knows_password(self, request: HTTPServerRequest) -> bool:
        given = request.headers.get("Authorization", "").encode()
        known = [b"Basic " + b64encode(credentials.encode()) for credentials in self.options.basic_auth]
        return any(hmac.compare_digest(given, one) for one in known)


class _Refusal(RequestHandler):
    def prepare(self) -> None:
        self.set_status(401)
        self.set_header("WWW-Authenticate", 'Basic realm="flower"')
        self.finish("Flower needs its user and password.\n")


def run_flower(settings: WorkerSettings) -> None:
    """
    Serve Flower until SIGTERM or SIGINT.

    Raises:
        CommandError: No password is set, or one that Flower cannot check.
    """
    own = settings.worker.flower
    if own.password is None or not own.password.get_secret_value():
        raise CommandError("worker.flower.password is not set: Flower does not start without a password")
    password = own.password.get_secret_value()
    if not password.isascii() or "," in password:
        raise CommandError("worker.flower.password has a comma or a letter beyond ASCII, which Flower cannot check")
    if not own.user.isascii() or {",", ":"} & set(own.user):
        raise CommandError("worker.flower.user has a comma, a colon or a letter beyond ASCII; choose a name without")
    # In the environment, since every user of the machine can read command lines.
    os.environ["FLOWER_BASIC_AUTH"] = f"{own.user}:{password}"
    if own.url_prefix:
        os.environ["FLOWER_URL_PREFIX"] = own.url_prefix
    # Its command, which reads options and handles signals, has no other way to use a class of one's own.
    flower.command.Flower = LockedFlower
    app = make_celery(settings.broker, settings.jobs)
    app.start(["flower", f"--address={own.address}", f"--port={own.port}"])
