"""Runs as a whole: their folders, their command line, what they came to."""
