"""Who is calling: the identity behind HtySudoerToken and HtyHost.

``verifier.HtyVerifier`` asks the organisation's auth service (or, with HTY_JWT_KEY, checks signatures here)
and fails closed: a caller gets in on a clear yes alone. ``verifier.NoVerifier`` is ENABLE_AUTH=false.
"""
