"""Coze's own SDKs in front of the running service, and the bytes that they read."""
