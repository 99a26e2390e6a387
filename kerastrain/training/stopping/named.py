"""Criteria by name: what `--stop` says.

parse_criterion("patience(5) or target(0.995)")
"""

from __future__ import annotations

from kerastrain.errors import suggestion
from kerastrain.expression import Call, Either, Expression, make, parse, pointed
from kerastrain.training.stopping.criterion import AllOf, AnyOf, Criterion
from kerastrain.training.stopping.evidence import Evidence
from kerastrain.training.stopping.noise import Divergence, Plateau, Significance, Smoothed
from kerastrain.training.stopping.patience import Patience
from kerastrain.training.stopping.prechelt import GL, PQ, UP, Progress
from kerastrain.training.stopping.reached import After, Baseline, Budget, Never, Target

CRITERIA: dict[str, type[Criterion]] = {
    criterion.name: criterion
    for criterion in (
        Patience,
        Target,
        Baseline,
        GL,
        PQ,
        UP,
        Progress,
        Smoothed,
        Plateau,
        Significance,
        Evidence,
        Divergence,
        After,
        Budget,
        Never,
    )
}


def parse_criterion(text: str, *, flag: str = "stop") -> Criterion:
    """Reads criteria joined by `or` and `and`; what `str(criterion)` gives is read back.

    Raises:
        OptionsError: the text cannot be read, names no criterion, or gives one arguments that
            it does not take; the message points at the place.
    """
    return _criterion(parse(text, flag=flag), text, flag)


def _criterion(expression: Expression, text: str, flag: str) -> Criterion:
    if isinstance(expression, Call):
        return _single(expression, text, flag)
    parts = tuple(_criterion(part, text, flag) for part in expression.parts)
    return AnyOf(parts) if isinstance(expression, Either) else AllOf(parts)


def _single(call: Call, text: str, flag: str) -> Criterion:
    if call.name.lower() not in CRITERIA:
        says = f"there is no criterion '{call.name}', only {', '.join(CRITERIA)}."
        raise pointed(text, flag, call.positions[""], says + suggestion(call.name, CRITERIA))
    kind = CRITERIA[call.name.lower()]
    if kind is Smoothed:
        call = _with_inner(call, text, flag)
    return make(call, kind, text=text, flag=flag)


def _with_inner(call: Call, text: str, flag: str) -> Call:
    """smoothed(patience(5)): the first argument, or `criterion`, is a criterion itself."""

    def inner(value: object) -> object:
        if isinstance(value, str):  # A bare word: a criterion without arguments.
            value = Call(value, positions={"": call.positions[""]})
        return _criterion(value, text, flag) if isinstance(value, Expression) else value

    first = tuple(map(inner, call.arguments[:1]))
    keywords = {k: inner(v) if k == "criterion" else v for k, v in call.keywords.items()}
    return Call(call.name, (*first, *call.arguments[1:]), keywords, call.positions)
