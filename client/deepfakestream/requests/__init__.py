"""The requests of the SDK by subject; ``deepfakestream.client`` puts them into one class."""
