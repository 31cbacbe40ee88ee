"""What stands between ASGI and the routes: context, bodies, uploads, middleware, the published OpenAPI."""
