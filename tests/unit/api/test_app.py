from flask import Flask
from pydantic import ValidationError

from api.app import create_app
from api.config import APISettings
from api.errors import validation_problem
from api.schemas import JobsQuery, QueryOptions


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


def test_the_schema_of_a_request_is_made_once():
    assert QueryOptions.model_json_schema() is QueryOptions.model_json_schema()
    assert QueryOptions.model_json_schema() != JobsQuery.model_json_schema()
    assert QueryOptions.model_json_schema(mode="serialization") is not QueryOptions.model_json_schema()


def test_mistakes_are_told_once_and_by_the_names_of_options():
    try:
        QueryOptions.model_validate({"sample_fps": "x", "reuse": "maybe"})
    except ValidationError as error:
        with Flask("test").app_context():
            answer = validation_problem(error).get_json()
    assert [mistake["name"] for mistake in answer["errors"]] == ["sample_fps", "reuse"]
    assert "None" not in str(answer["errors"])
