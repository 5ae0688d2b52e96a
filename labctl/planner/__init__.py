"""Decides what happens next. Pure: no input or output, no clock, no random numbers."""
