"""`python -m cutoff.client` is `cutoff`."""

from cutoff.client.cli import main

main()
