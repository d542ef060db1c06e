import json
import shutil

import pytest
from flask import Flask
from pydantic import ValidationError
from structlog.testing import capture_logs

from api.app import create_app
from api.config import APISettings
from api.errors import validation_problem
from api.schemas import JobsQuery, QueryOptions
from shared.errors import ModelError, UnknownModelError
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR


def test_an_api_process_keeps_a_connection_for_each_thread_and_no_more(tmp_path):
    settings = APISettings(
        database={"url": "postgresql+psycopg://nobody@127.0.0.1:1/none", "pool_size": 3},
        broker={"url": "redis://127.0.0.1:1/0"},
        storage={"url": f"file://{tmp_path}"},
        api={"threads": 7},
    )
    pool = create_app(settings).extensions["deepfakestream"].sessions.engine.pool
    assert pool.size() == 7
    assert pool._max_overflow == 0


def test_the_schema_of_a_request_is_cached():
    assert QueryOptions.model_json_schema() is QueryOptions.model_json_schema()
    assert QueryOptions.model_json_schema() != JobsQuery.model_json_schema()
    assert QueryOptions.model_json_schema(mode="serialization") is not QueryOptions.model_json_schema()


def test_mistakes_are_reported_once_by_option_name():
    try:
        QueryOptions.model_validate({"sample_fps": "x", "reuse": "maybe"})
    except ValidationError as error:
        with Flask("test").app_context():
            answer = validation_problem(error).get_json()
    assert [mistake["name"] for mistake in answer["errors"]] == ["sample_fps", "reuse"]
    assert "None" not in str(answer["errors"])


def settings_with(models_dir, storage):
    return APISettings(
        database={"url": "postgresql+psycopg://nobody@127.0.0.1:1/none"},
        broker={"url": "redis://127.0.0.1:1/0"},
        storage={"url": f"file://{storage}"},
        models={"dir": models_dir},
    )


def write_unknown_backbone(folder):
    content = json.loads((PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT / "manifest.json").read_bytes())
    content["architecture"]["backbone"] = "xception"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(content))


def test_the_api_does_not_start_with_a_default_checkpoint_of_an_unknown_backbone(tmp_path):
    write_unknown_backbone(tmp_path / "models" / DEFAULT_CHECKPOINT)
    with pytest.raises(ModelError, match=f"'{DEFAULT_CHECKPOINT}' has the unknown backbone 'xception'; known are"):
        create_app(settings_with(tmp_path / "models", tmp_path))


def test_the_api_does_not_start_with_a_default_checkpoint_that_is_not_installed(tmp_path):
    shutil.copytree(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT, tmp_path / "models" / "renamed")
    settings = settings_with(tmp_path / "models", tmp_path)
    misspelt = settings.model_copy(update={"models": settings.models.model_copy(update={"default": "swap-lite9"})})
    with pytest.raises(UnknownModelError, match=f"^unknown model 'swap-lite9'; available: {DEFAULT_CHECKPOINT}$"):
        create_app(misspelt)


def test_the_api_starts_with_another_such_checkpoint_and_logs_its_name(tmp_path):
    shutil.copytree(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT, tmp_path / "models" / DEFAULT_CHECKPOINT)
    write_unknown_backbone(tmp_path / "models" / "future")
    with capture_logs() as events:
        create_app(settings_with(tmp_path / "models", tmp_path))
    (event,) = events
    assert (event["log_level"], event["event"]) == ("error", "checkpoint refused")
    assert event["reason"].startswith("checkpoint 'future' has the unknown backbone 'xception'; known are ")
