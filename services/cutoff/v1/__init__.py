"""Stubs generated from protos/cutoff/v1 by `make protos`; never edited."""
