"""Record the examples anew: ``python -m tests.examples``."""

import sys
import tempfile
from pathlib import Path

from api.embedded.stack import EmbeddedStack
from tests.examples.recording import record_service
from tests.examples.stable import stabilise
from tests.examples.writing import FILE, PAGES, fill_blocks, write_json
from tests.servers import free_port, state_folder


def main() -> int:
    """Run a stack, record it, and write the file of the api and the blocks of documents."""
    ports = {name: free_port() for name in ("port", "flower_port", "push_port")}
    with state_folder() as state, tempfile.TemporaryDirectory() as folder, EmbeddedStack(state, **ports) as stack:
        examples = stabilise(record_service(stack, Path(folder)).to_json(), stack.url)
    stream = examples["operations"]["getStream"]["200"]["application/json"]["recorded"]
    if stream["counters"]["dropped"] or stream["source_error"]:
        sys.stderr.write("the stream lost segments, since the machine is busy; nothing was written, run it again\n")
        return 1
    FILE.write_text(f"{write_json(examples)}\n")
    for page in PAGES:
        page.write_text(fill_blocks(page.read_text(), examples))
    return 0


if __name__ == "__main__":
    sys.exit(main())
