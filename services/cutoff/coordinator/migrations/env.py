"""What alembic runs to apply versions: on the connection it is given, inside that one's transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
