"""
The examples of the OpenAPI document and of docs/api.md: recorded from a real run of the service.

``python -m tests.examples`` runs the embedded stack, records every operation and webhook on media made on the spot
(``recording``), replaces what differs from run to run (``stable``), and writes ``api/examples.json`` and the blocks of
docs/api.md that show parts of it (``writing``). Tests hold what a stack answers against the record (``shapes``).
"""
