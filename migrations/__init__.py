"""The Alembic migrations that own the database schema."""
