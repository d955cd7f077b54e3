"""What the four stage services share: a run is one child process, its events, its lease, its end."""
