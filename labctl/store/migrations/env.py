"""Run by Alembic: applies the migrations on the connection that `ensure_current` opened."""

from alembic import context

from labctl.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters tables by copying them
)
context.run_migrations()
