"""No digest of a job's spec: a repeated request's spec is compared with the one in the job's record."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Removes the column."""
    op.drop_column("jobs", "spec_sha256")
