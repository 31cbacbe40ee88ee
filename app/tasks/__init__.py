"""The async task layer: run, read, cancel, take over, drain. It never sees a request or a status code."""
