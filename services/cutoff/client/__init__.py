"""The Python client and the `cutoff` command."""

from cutoff.client.api import Client, Outcome, outcome_of

__all__ = ["Client", "Outcome", "outcome_of"]
