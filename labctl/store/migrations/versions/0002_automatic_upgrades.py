"""Automatic OS upgrades: since when, image versions by region, what the daemon was told."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and tables; moments are text, see `schema.Moment`."""
    op.add_column("scale_set", sa.Column("automatic_since", sa.String(length=32), nullable=True))
    op.add_column("image_version", sa.Column("end_of_life", sa.String(length=32), nullable=True))
    op.create_table(
        "image_replica",
        sa.Column("definition", sa.String(length=40), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("region", sa.String(length=40), nullable=False),
        sa.Column("replicated_at", sa.String(length=32), nullable=False),
        sa.Column("excluded_from_latest", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["definition", "version"],
            ["image_version.definition", "image_version.version"],
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("definition", "version", "region"),
    )
    op.create_table(
        "setting",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    # A set with automatic upgrades on has had them since it was made, as far as is known.
    op.execute(
        "UPDATE scale_set SET automatic_since = created_at WHERE EXISTS ("
        " SELECT 1 FROM model WHERE model.scale_set = scale_set.name"
        " AND model.revision = scale_set.model_revision"
        " AND json_extract(model.spec,"
        " '$.upgradePolicy.automaticOSUpgradePolicy.enableAutomaticOSUpgrade'))"
    )
