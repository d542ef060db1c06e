"""The examples of the OpenAPI document are complete, valid and stable, and docs/api.md shows some of them."""

import copy
import json
import re

import jsonschema_rs
import pytest

from api.app import create_app
from api.config import APISettings
from tests.examples.recording import WITHOUT_EXAMPLE
from tests.examples.writing import FILE, PAGES, blocks, find_example, read_examples, write_json

EXAMPLES = read_examples()


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    settings = APISettings(
        database={"url": "postgresql+psycopg://x/y"},
        broker={"url": "redis://x"},
        storage={"url": f"file://{tmp_path_factory.mktemp('storage')}"},
    )
    return create_app(settings).api_doc


def contents(document):
    """Where a request or a successful answer of *document* has a body: operation, part, media type, its description."""
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        parts = {"request": operation.get("requestBody", {}), **operation["responses"]}
        for part, described in parts.items():
            if part == "request" or part.startswith("2"):
                for media_type, content in described.get("content", {}).items():
                    yield operation["operationId"], part, media_type, content


def mistakes(document, schema, value):
    """What is wrong with *value* by a schema of *document*."""
    whole = {**schema, "components": document["components"]}
    found = jsonschema_rs.Draft202012Validator(whole, validate_formats=True).iter_errors(value)
    return [f"{'/'.join(map(str, error.instance_path))}: {error.message[:200]}" for error in found]


def test_every_operation_has_examples_of_its_request_and_of_its_answers(document):
    missing, in_document = [], {}
    for operation, part, media_type, content in contents(document):
        is_binary = content["schema"].get("format") == "binary"
        assert media_type not in WITHOUT_EXAMPLE or is_binary or media_type == "text/html"
        if not is_binary and media_type not in WITHOUT_EXAMPLE and not content.get("examples"):
            missing.append(f"{operation} {part} {media_type}")
        if "examples" in content:
            in_document.setdefault(operation, {}).setdefault(part, {})[media_type] = list(content["examples"])
    assert missing == []
    # None is of an operation, a status or a media type that does not exist.
    assert in_document == {
        operation: {part: {kind: list(named) for kind, named in kinds.items()} for part, kinds in parts.items()}
        for operation, parts in EXAMPLES["operations"].items()
    }


def test_every_example_is_valid(document):
    found = {
        f"{operation} {part} {name}": mistakes(document, content["schema"], example["value"])
        for operation, part, _, content in contents(document)
        for name, example in content.get("examples", {}).items()
    }
    assert len(found) > 40
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_an_invalid_example_is_found(document):
    job = copy.deepcopy(EXAMPLES["operations"]["getJob"]["200"]["application/json"]["recorded"])
    job["id"], job["segments"][0]["fake_score"] = 7, 1.5
    del job["verdict"]
    schema = {"$ref": "#/components/schemas/JobDocument"}
    assert {line.partition(":")[0] for line in mistakes(document, schema, job)} == {"", "id", "segments/0/fake_score"}


def test_refusals_share_an_example_of_their_status(document):
    for status, problem in EXAMPLES["problems"].items():
        assert str(problem["status"]) == status
        assert mistakes(document, {"$ref": "#/components/schemas/Problem"}, problem) == []
        assert document["components"]["examples"][f"problem{status}"] == {"value": problem}
    for path in document["paths"].values():
        for operation in path.values():
            for status in operation["responses"].keys() & EXAMPLES["problems"].keys():
                [example] = operation["responses"][status]["content"]["application/problem+json"]["examples"].values()
                assert example == {"$ref": f"#/components/examples/problem{status}"}


def test_examples_have_no_address_and_no_secret_of_a_run():
    text = FILE.read_text()
    assert re.findall(r"127\.0\.0\.1|localhost|dfs_live_\w+|token=\w+", text) == []
    assert set(re.findall(r"\b(20\d\d)-\d\d-\d\d", text)) == {"2026"}
    assert set(re.findall(r"https?://([\w.]+)", text)) <= {
        f"{name}.example" for name in ("deepfakes", "media", "receiver", "storage")
    }


def test_the_file_of_examples_is_as_it_was_written():
    assert FILE.read_text() == f"{write_json(EXAMPLES)}\n"
    assert json.loads(write_json(EXAMPLES)) == EXAMPLES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_documents_show_examples_as_they_were_recorded(page):
    shown = blocks(page.read_text())
    assert shown
    assert {path: text for path, text in shown if text != find_example(EXAMPLES, path)} == {}
