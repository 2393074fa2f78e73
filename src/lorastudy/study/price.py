"""What a machine costs, as `--price` says it: an amount per hour."""

import re
from dataclasses import dataclass

from lorastudy.errors import ConfigError

_FORM = re.compile(
    r"(?P<before>[$€£¥]?)(?P<amount>[0-9]{1,9}(\.[0-9]{1,6})?)"
    r"(?P<after>( ?[A-Za-z]{3}| ?[$€£¥])?) ?/ ?h"
)


@dataclass(frozen=True, slots=True)
class Price:
    """An amount of money per hour; the currency is what the user wrote around the number."""

    per_hour: float
    before: str = ""
    after: str = ""

    def write_cost(self, seconds: float) -> str:
        """The cost of `seconds` as people read it: "$0.37", "4.20 EUR"."""
        return f"{self.before}{self.cost_of(seconds):,.2f}{self.after}"

    def cost_of(self, seconds: float) -> float:
        """The cost of `seconds`, a number."""
        return self.per_hour * seconds / 3600


def read_price(text: str) -> Price:
    """The price that `text` says.

    Raises:
        ConfigError: It is not an amount per hour.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            f"--price {text[:40]!r} is not an amount per hour. Write it as 1.20/h, or with a "
            "currency as $1.20/h or 1.20 EUR/h."
        )
    return Price(float(found["amount"]), found["before"], found["after"])
