"""Remembers: what users want and what was found out, in SQLite."""
