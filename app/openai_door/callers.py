"""Whom a caller speaks for."""

from typing import Annotated

from fastapi import Depends, Header

from app.models import Identity


async def get_end_user(
    user_id: Annotated[
        str | None,
        Header(alias="X-OpenWebUI-User-Id", description="Counts where the body has no `user`"),
    ] = None,
) -> str | None:
    return user_id


EndUserDep = Annotated[str | None, Depends(get_end_user)]


def default_user(identity: Identity) -> str:
    """Where the request names none: the person, the API key's name, or the root."""
    return identity.hty_id or identity.root.rpartition(":")[2]
