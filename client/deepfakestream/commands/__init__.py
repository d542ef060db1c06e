"""The commands of this package by subject; ``deepfakestream.cli`` puts them into one group."""
