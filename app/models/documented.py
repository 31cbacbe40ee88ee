"""What the models of the published document have in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Documented(BaseModel):
    """The text below a field is its description in the published document."""

    model_config = ConfigDict(use_attribute_docstrings=True)


def example(value: Any) -> ConfigDict:
    """``model_config`` of a model that has this example in the published document."""
    return ConfigDict(json_schema_extra={"examples": [value]})


class Body(Documented):
    """What we read: other fields are passed over, and no value is taken for one of another type."""

    model_config = ConfigDict(extra="ignore", strict=True)


class Answer(Documented):
    """What we send has all of its fields, whether they have a value or not."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class AnswerAround(Answer):
    """Has another answer in it, and is called after that: ``TaskData[Chat]`` is ``ChatTaskData``."""

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        return f"{params[0].__name__}{cls.__name__}"

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if cls.__doc__ is None:
            cls.__doc__ = cls.__base__.__doc__
        # The texts are read by now. What is made of this by a parameter inherits them; looking for its source
        # again, through all frames and modules, took half the time of a start.
        cls.model_config["use_attribute_docstrings"] = False
