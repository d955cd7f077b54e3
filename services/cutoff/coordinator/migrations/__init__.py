"""The versions of the job store's tables, which alembic applies in order; see `coordinator/schema.py`."""
