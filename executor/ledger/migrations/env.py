"""Where Alembic begins. The connection is `executor.ledger.upgrade`'s, in a transaction already."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
