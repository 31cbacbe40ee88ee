"""The client has the version of the service that it was made for."""

__version__ = "0.2.0"
