"""The command line: one function per command; tables, progress, JSON and YAML."""
