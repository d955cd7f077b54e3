"""cutoff gives a language model a knowledge cutoff: train, merge, convert, evaluate, install."""

__version__ = "0.1.0"
