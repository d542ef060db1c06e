import io
import threading

from deepfakestream.errors import DeepfakeStreamError
from deepfakestream.scanning import Options, Scan
from rich.console import Console


class SlowestFirst(Scan):
    """The first source ends after the second, which ends after the third."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.ended = {source: threading.Event() for source in "abc"}

    def _submit_and_wait(self, _client, source, *_shown):
        follower = chr(ord(source) + 1)
        assert follower not in self.ended or self.ended[follower].wait(10)
        self.ended[source].set()
        raise DeepfakeStreamError(source)


def test_results_stand_in_the_order_of_the_sources_whichever_ends_first():
    scan = SlowestFirst(Options(timeout_s=60.0), Console(file=io.StringIO()), as_json=True)
    results = scan.through(None, ["a", "b", "c"])
    assert [result.source for result in results] == ["a", "b", "c"]
    assert [str(result.error) for result in results] == ["a", "b", "c"]
