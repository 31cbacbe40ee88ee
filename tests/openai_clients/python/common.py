"""What every script has: where the service is, the tool that the bot asks for, and how results are told."""

from __future__ import annotations

import itertools
import json
import os
from typing import Any

from pydantic import BaseModel

BASE_URL = os.environ["SERVICE"] + "/coze/openai/v1"
API_KEY = os.environ["API_KEY"]
MODEL = os.environ["MODEL"]
CODES = (4010, 4028, 4100)
PLACE = "a place, please"
TWO_ROUNDS = "[[sim:requires_action=function;rounds=2]] weather?"
ONE_ROUND = "[[sim:requires_action=function]] weather?"
_RUNS = itertools.count(21)


class Place(BaseModel):
    """A place."""

    name: str
    people: int


def degrees() -> str:
    """Another one each time, so that rounds can be told apart."""
    return f"{next(_RUNS)} degrees"


def tell(result: dict[str, Any]) -> None:
    print(json.dumps(result))
