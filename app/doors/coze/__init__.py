"""Coze's own API, for its official SDKs: its bodies, errors, streams and routes."""
