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
    same = {"a": 2.5, "b": [{"c": None}, {"c": "y"}], "d": {}, "started_at": "z"}
    assert list(differences(recorded, same)) == []
    lists = [{"b": value} for value in ([{"c": "x"}], [{"c": None}], [], [{"c": 1}], [{"e": "x"}])]
    for changed in ({"a": "1"}, {"a": True}, {"a": None}, {"d": {"e": 1}}, *lists):
        assert list(differences(recorded, recorded | changed)), changed
    assert list(differences(recorded, {**recorded, "f": 1})) == ["/f is only answered"]


def test_further_items_of_a_list_may_lack_a_value():
    assert list(differences([{"c": "x"}], [{"c": "x"}, {"c": None}])) == []
    for further in ({"c": 1}, {"c": "x", "d": 1}, {}):
        assert list(differences([{"c": "x"}], [{"c": "x"}, further])), further
