"""The base of every value that the ledger stores: immutable, strict, and the same JSON in as out.

Amounts of base units and prices outgrow the integers that JSON readers agree on (2**53 - 1), so they are written as
strings of digits; a value read back equals the one written.

Every value lists its fields in the order of canonical JSON, so that the bytes that the ledger hashes and seals are
simply what it serializes to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BaseUnits", "BigInt", "Value"]

U64_MAX: Final = 2**64 - 1


class Value(BaseModel):
    """A stored value: snake_case in code, camelCase in JSON; nothing coerced, nothing unknown, nothing mutable."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with the fields in `update`, checked like any other: no value is past its rules."""
        if update is None:
            return super().model_copy(deep=deep)
        held = {name: getattr(self, name) for name in type(self).model_fields}  # without what was worked out from them
        return type(self)(**{**held, **update})

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **_values: object) -> NoReturn:
        """Refuse: a value that nobody checked is none. Raises TypeError."""
        raise TypeError(f"{cls.__name__} is only made by checking it")

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form; keys whose value is None are left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_json_object(cls, value: object) -> Self:
        """Read back what `to_json_object` gave."""
        return cls.model_validate(value)


def _int_of_digits(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


DIGITS: Final = {"type": "string", "pattern": "^[0-9]+$"}

BigInt = Annotated[
    int,
    BeforeValidator(_int_of_digits),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"anyOf": [DIGITS, {"type": "integer"}]}, mode="validation"),
    WithJsonSchema(DIGITS, mode="serialization"),
]
"""An integer that may pass 2**53: a string of digits in JSON."""

BaseUnits = Annotated[BigInt, Field(ge=1, le=U64_MAX)]
"""A token amount in base units, 1 to 2**64 - 1."""
