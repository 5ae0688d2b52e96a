"""The answers, by kind of resource."""
