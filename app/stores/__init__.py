"""Typed stores over Redis: models in, models out; scripts decide what must happen in one step."""
