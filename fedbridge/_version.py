"""The version: read by the build, and written into traces and saved states."""

__version__ = "0.1.0"
