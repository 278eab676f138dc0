"""What pydantic found wrong, in words for the person who wrote the file."""

from typing import Any

from pydantic import ValidationError


def reasons(error: ValidationError) -> str:
    """Each field that breaks a rule, the rule and the value, as `description: is empty; found_on: ...`."""
    return "; ".join(": ".join([*map(str, details["loc"][:1]), _reason(details)]) for details in error.errors())


def _reason(details: Any) -> str:
    match details["type"]:
        case "missing":
            return "is missing"
        case "string_too_short":
            return "is empty"
        case "string_too_long":
            return f"is longer than {details['ctx']['max_length']} characters"
        case "value_error":
            return str(details["ctx"]["error"])
        case _:
            return f"{ascii(details['input'])[:40]}: {details['msg'][0].lower()}{details['msg'][1:]}"
