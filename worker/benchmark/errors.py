"""What goes wrong in a benchmark."""


class BenchmarkError(Exception):
    """Something cannot be measured."""
