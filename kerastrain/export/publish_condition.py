"""Publishing only what is good enough: `--publish_if="val_accuracy > deployed"`.

    condition = PublishCondition.parse("val_loss < deployed - 0.01 and accuracy > 0.9")
    condition.terms[0]           # Term("loss", "validation", "<", True, -0.01)
    publish_decision.decide(condition, candidate, base, data, task)

A condition is METRIC (> | >= | < | <=) (deployed [+ | - NUMBER] | NUMBER), or several joined
by `and`. Metrics are those of `kerastrain evaluate`; `val_…` is of the validation split,
`test_…` and without either of the test split. "deployed" is the same metric of the newest
version, which is asked anew about the same rows: what was measured when it was published may
have been measured on others.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kerastrain.errors import OptionsError, suggestion
from kerastrain.expression import pointed

if TYPE_CHECKING:
    from kerastrain.export.rows import Split

FLAG = "publish_if"
DEPLOYED = "deployed"
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
# All of `scoring.score`, and in which direction each is better; that module needs TensorFlow.
HIGHER = ("accuracy", "f1_macro", "roc_auc", "average_precision", "r2")
LOWER = ("loss", "brier", "ece", "rmse", "mae", "pinball")
OF_A_LEVEL = re.compile(r"(pinball|coverage)_(0?\.\d+)")
PREFIXES: dict[str, Split] = {"val_": "validation", "test_": "test"}

TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_]\w*(?:\.\d+)?)
         |(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
         |(?P<sign>[+-])
         |(?P<comparison>[<>=!]=?)
         |(?P<other>\S))""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Term:
    """One comparison.

    Attributes:
        metric: as `scoring.score` names it; split: on whose rows.
        number: what it is compared with, or what is added to the deployed version's value.
    """

    metric: str
    split: Split
    comparison: str
    is_against_deployed: bool
    number: float

    @property
    def name(self) -> str:
        return f"val_{self.metric}" if self.split == "validation" else self.metric

    def holds(self, candidate: float, deployed: float | None) -> bool:
        """Whether it does for these values of the metric; NaN is never good enough.

        deployed: None while there is none, which everything beats that has a value.
        """
        if not self.is_against_deployed:
            return COMPARISONS[self.comparison](candidate, self.number)
        if deployed is None:
            return candidate == candidate
        return COMPARISONS[self.comparison](candidate, deployed + self.number)

    def __str__(self) -> str:
        than = f"{self.number:.10g}"
        if self.is_against_deployed:
            sign = "+" if self.number > 0 else "-"
            than = f"{DEPLOYED} {sign} {abs(self.number):.10g}" if self.number else DEPLOYED
        return f"{self.name} {self.comparison} {than}"


@dataclass(frozen=True)
class PublishCondition:
    """All of its terms have to hold."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.terms))

    @classmethod
    def parse(cls, text: str) -> PublishCondition:
        """Reads a condition.

        Raises:
            OptionsError: it is none; the message points at the place.
        """
        reader = _Reader(text)
        terms = [reader.term()]
        while reader.found is not None:
            reader.expect_and()
            terms.append(reader.term())
        return cls(tuple(terms))


class _Reader:
    def __init__(self, text: str):
        self.text = " ".join(text.split())
        self.tokens = list(TOKEN.finditer(self.text))
        self.place = 0

    @property
    def found(self) -> re.Match[str] | None:
        """The token that is next."""
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def take(self, kind: str) -> str | None:
        """The next token if it is of a kind, which is then read."""
        token = self.found
        if token is None or token.lastgroup != kind:
            return None
        self.place += 1
        return token[kind]

    def error(self, says: str, *, back: int = 0) -> OptionsError:
        place = self.place - back
        column = len(self.text)
        if place < len(self.tokens):
            token = self.tokens[place]
            column = token.start(token.lastgroup or 0)
        return pointed(self.text, FLAG, column, says)

    def term(self) -> Term:
        metric, split = self._metric()
        comparison = self._comparison()
        word = self.take("name")
        if word not in (None, DEPLOYED):
            near = suggestion(word or "", [DEPLOYED])
            raise self.error(
                f"'{DEPLOYED}' or a number is expected here.{near}".rstrip("."), back=1
            )
        if word == DEPLOYED:
            self._check_direction(metric, comparison)
        number = self._signed_number(is_optional=word == DEPLOYED)
        return Term(metric, split, comparison, word == DEPLOYED, number)

    def _comparison(self) -> str:
        found = self.take("comparison")
        if found not in COMPARISONS:
            back = int(found is not None)
            raise self.error(f"one of {', '.join(COMPARISONS)} is expected here", back=back)
        return found

    def _metric(self) -> tuple[str, Split]:
        name = self.take("name")
        if name is None or name == DEPLOYED:
            raise self.error(
                "a metric is expected here, as in 'val_accuracy > deployed'",
                back=int(name is not None),
            )
        prefix = next((each for each in PREFIXES if name.startswith(each)), "")
        metric = name.removeprefix(prefix)
        if metric not in HIGHER + LOWER and not OF_A_LEVEL.fullmatch(metric):
            near = suggestion(metric, HIGHER + LOWER).replace("'", f"'{prefix}", 1)
            raise self.error(
                f"there is no metric '{name}'; expected one of {', '.join(HIGHER + LOWER)} (for "
                f"quantiles also pinball_0.9, coverage_0.9), with val_ in front on the validation "
                f"split.{near}".rstrip("."),
                back=1,
            )
        return metric, PREFIXES.get(prefix, "test")

    def _signed_number(self, *, is_optional: bool) -> float:
        sign = self.take("sign")
        number = self.take("number")
        if number is None:
            if sign is None and is_optional:
                return 0.0
            raise self.error("a number is expected here, as 0.95")
        if is_optional and sign is None:
            raise self.error("'+', '-' or 'and' is expected here", back=1)
        return float(number) * (-1 if sign == "-" else 1)

    def _check_direction(self, metric: str, comparison: str) -> None:
        """Only to publish what is worse than the deployed version is nobody's wish."""
        wrong = ">" if metric in LOWER or metric.startswith("pinball") else "<"
        if comparison[0] == wrong and not metric.startswith("coverage"):
            better = "lower" if wrong == ">" else "higher"
            raise self.error(
                f"this would publish only what is worse: {metric} is better when it is {better}",
                back=2,
            )

    def expect_and(self) -> None:
        if self.found is None or self.found["name"] != "and":
            raise self.error("'and' is expected here, and then another condition")
        self.place += 1
