"""The error of benchmarks."""


class BenchmarkError(Exception):
    """A measurement is impossible or failed."""
