"""What can be wrong with training's inputs. These errors never reach a client of the service."""


class TrainingError(Exception):
    """Training or evaluation cannot go on; the message says why."""


class DataError(TrainingError):
    """A data set, a crop cache or a recipe is not as it should be."""
