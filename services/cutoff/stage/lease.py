"""How long things wait for each other, in seconds of monotonic clocks; docs/adr/0017 says why.

Environment: CUTOFF_LEASE_SECONDS, the same for the coordinator and its stage services; the others follow from it.
"""

from __future__ import annotations

import os

LEASE_SECONDS = float(os.environ.get("CUTOFF_LEASE_SECONDS") or 600.0)
"""How long a run goes on with nobody watching, and how long the coordinator waits for a service that has one."""

HEARTBEAT_SECONDS = LEASE_SECONDS / 60
"""Between two heartbeats: of a run's process to its service, of the service to whoever watches the run."""

SILENCE_SECONDS = LEASE_SECONDS / 10
"""After that long without a heartbeat a stream is given up, and its service asked whether it still has the run."""

FIRST_SECONDS = 2 * SILENCE_SECONDS
"""The same for the first word of a call: a service that has just started may still be importing torch."""
