import stat

import pytest

from api.embedded import state


class InterruptedFile:
    """A file whose writer is stopped by Ctrl-C."""

    def __init__(self, file):
        self._file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, _):
        raise KeyboardInterrupt


def test_a_secret_is_whole_or_not_there(tmp_path, monkeypatch):
    """The stack makes a secret once, and takes a file that is there for one that has it."""
    path, open_descriptor = tmp_path / "key", state.os.fdopen
    with monkeypatch.context() as patch:
        patch.setattr(state.os, "fdopen", lambda *given: InterruptedFile(open_descriptor(*given)))
        with pytest.raises(KeyboardInterrupt):
            state.write_secret(path, "dfs_key")
    assert list(tmp_path.iterdir()) == []
    state.write_secret(path, "dfs_key")
    assert path.read_text() == "dfs_key\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
