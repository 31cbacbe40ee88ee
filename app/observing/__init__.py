"""What operators see of the service: metrics and traces. Logs: ``app.logging_config``."""
