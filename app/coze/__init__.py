"""The only code that knows Coze's wire.

``client.CozeClient`` makes the calls, ``fold.Fold`` makes an answer of a stream's events, ``stream.frame``
makes bytes of an event, ``credentials`` has the identities behind the calls. All failures are
``app.exceptions.UpstreamError``.
"""
