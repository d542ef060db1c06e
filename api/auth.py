"""Authentication by API keys, and authorisation by scopes and owners."""

import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Flask, Response, current_app, g, request
from sqlalchemy import select

from api.errors import APIError
from api.keys import PREFIX, digest_key
from shared.db import SessionFactory
from shared.errors import Code
from shared.models import APIKey

View = TypeVar("View", bound=Callable[..., Any])
MAX_KEY_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """The API key of a request."""

    key_id: uuid.UUID
    owner: str
    name: str
    scopes: frozenset[str]


def requires(scope: str) -> Callable[[View], View]:
    """Require a key with *scope* for a view; ``admin`` includes all scopes, for the key's own owner."""

    def mark(view: View) -> View:
        view.required_scope = scope  # type: ignore[attr-defined]
        return view

    return mark


def caller() -> Caller:
    """Return the caller of the current request."""
    found: Caller = g.caller
    return found


def register_auth(app: Flask, sessions: SessionFactory) -> None:
    """Check the key of every request before anything else is read, in particular its body."""

    def authenticate() -> Response | None:
        view = current_app.view_functions.get(request.endpoint or "")
        scope = getattr(view, "required_scope", None)
        if scope is None:
            return None
        found = _authenticate(sessions, _read_key())
        if not found.scopes & {scope, "admin"}:
            raise APIError(Code.MISSING_SCOPE, f"the API key lacks the scope {scope}")
        g.caller = found
        return None

    app.before_request(authenticate)


def _read_key() -> str:
    kind, _, secret = request.headers.get("Authorization", "").partition(" ")
    secret = secret.strip()
    if kind.lower() != "bearer" or not secret:
        raise _unauthenticated("send an API key as 'Authorization: Bearer dfs_…'")
    if not secret.startswith(PREFIX) or len(secret) > MAX_KEY_CHARACTERS:
        raise _unauthenticated(f"invalid API key; keys begin with {PREFIX}")
    return secret


def _authenticate(sessions: SessionFactory, secret: str) -> Caller:
    digest = digest_key(secret)
    with sessions.transaction() as session:
        row = session.scalars(select(APIKey).where(APIKey.secret_sha256 == digest)).one_or_none()
        # The timing of a lookup by digest reveals nothing about the key; the comparison is in constant time as well.
        if row is None or row.revoked_at is not None or not secrets.compare_digest(row.secret_sha256, digest):
            raise _unauthenticated("the API key is unknown or revoked")
        return Caller(row.id, row.owner, row.name, frozenset(row.scopes))


def _unauthenticated(detail: str) -> APIError:
    return APIError(Code.UNAUTHENTICATED, detail, headers={"WWW-Authenticate": 'Bearer realm="deepfakestream"'})
