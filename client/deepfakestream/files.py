"""Files that appear at their place only when they are whole."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced_when_whole(target: Path) -> Iterator[Path]:
    """
    Yield a new path beside *target*; the file written there replaces *target* if the block ends without an error.

    A symbolic link at *target* is replaced and not followed.

    Raises:
        OSError: The file cannot be written; the error names *target*.
    """
    # Beside the target, so that it can be moved there in one step.
    partial_file = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield partial_file
        partial_file.replace(target)
    except OSError as error:
        # The error names the temporary file, of which the caller knows nothing.
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        with suppress(OSError):
            partial_file.unlink(missing_ok=True)
