"""The commands of `cutoff`, one module for each group; `client/cli.py` lists them all."""
