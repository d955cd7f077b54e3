"""The name that each job's model is to have, so that another job of that name is found without reading all."""

import sqlalchemy as sa
from alembic import op

from cutoff.v1 import job_pb2

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the column and fills it from the jobs' records."""
    op.add_column("jobs", sa.Column("installs", sa.String(), nullable=True))
    op.create_index("ix_jobs_installs", "jobs", ["installs"])
    jobs = sa.table("jobs", *(sa.column(name) for name in ("number", "record", "installs")))
    connection = op.get_bind()
    for number, record in connection.execute(sa.select(jobs.c.number, jobs.c.record)).all():
        install = job_pb2.Job.FromString(record).spec.install
        if install.enabled:
            name = f"{install.publisher}/{install.model_name}"
            connection.execute(jobs.update().where(jobs.c.number == number).values(installs=name))
