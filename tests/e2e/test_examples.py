"""The service answers as the examples in its OpenAPI document say, and sends such webhooks."""

from tests.examples.recording import record_service
from tests.examples.shapes import differences
from tests.examples.stable import stabilise
from tests.examples.writing import read_examples


def test_answers_and_webhooks_have_the_shape_of_the_examples(stack, tmp_path):
    found = stabilise(record_service(stack, tmp_path).to_json(), stack.url)
    assert list(differences(read_examples(), found)) == [], "python -m tests.examples records them anew"


def test_differences_of_shapes_are_found():
    recorded = {"a": 1, "b": [{"c": "x"}, {"c": None}], "d": {}, "started_at": None}
    assert list(differences(recorded, {"a": 2.5, "b": [{"c": None}, {"c": "y"}], "d": {}, "started_at": "z"})) == []
    assert list(differences({"b": [{"c": "x"}]}, {"b": [{"c": "x"}, {"c": None}]})) == []
    further = [*recorded["b"], {"c": 1}]
    lists = [{"b": value} for value in ([{"c": "x"}], [], [{"c": 1}], further)]
    for changed in ({"a": "1"}, {"a": True}, {"a": None}, {"d": {"e": 1}}, *lists):
        assert len(list(differences(recorded, recorded | changed))) >= 1, changed
    assert list(differences(recorded, {**recorded, "f": 1})) == ["/f is only answered"]
