"""Errors of training and evaluation, which never reach a client of the service."""


class TrainingError(Exception):
    """Training or evaluation cannot continue; the message says why."""


class DataError(TrainingError):
    """A data set, a crop cache or a recipe is missing or invalid."""
