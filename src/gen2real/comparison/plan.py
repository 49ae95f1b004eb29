"""What a comparison will run: its arms at each size, in an order that puts every run after those it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gen2real.methods.compare_settings import Arm, CompareConfig

Place = tuple[str, int]
"""A row's name and a seed."""


@dataclass(frozen=True)
class Sized:
    """The arm a row is of, and the size of the data it is run at; None for an arm that is not scaled."""

    arm: str
    size: int | None


@dataclass(frozen=True)
class Plan:
    """A comparison, an arm at each size having become a row of its own.

    arms: row → its arm, in the table's order. rows: row → what it is of. order: rows, each after those it starts from.
    """

    config: CompareConfig
    arms: Mapping[str, Arm]
    rows: Mapping[str, Sized]
    order: tuple[str, ...]

    def seeds(self, row: str) -> tuple[int, ...]:
        """The seeds that a row is trained with; a soup's are those of its arms."""
        return self.arms[row].seeds or self.config.seeds

    def reference(self, row: str, against: str) -> str | None:
        """The row that `row` is tested against for an arm of `against`: of the same size. None: there is none."""
        found = against
        if against in self.config.scaled_arms:
            size = self.rows[row].size
            if size is None:
                return None
            found = _at(against, size)
        return None if found == row else found

    def ingredients(self, row: str) -> dict[int, list[Place]]:
        """For each seed of a soup, what it is made of; one soup over seeds has the seed 0."""
        soup = self.arms[row].soup
        assert soup is not None
        found: dict[int, list[Place]] = {}
        for name in soup.arms:
            for seed in self.seeds(name):
                found.setdefault(seed if soup.over == "arms" else 0, []).append((name, seed))
        return found

    def started_from(self) -> set[str]:
        """Rows whose models are needed, as others start from them: those and all whose trainings are equal to theirs.

        Equal trainings share a run, and a run either keeps its model or does not.
        """
        needed = {other for arm in self.arms.values() for other in arm.starts.values()}
        same = [self._training(row) for row in needed]
        return {row for row in self.arms if self._training(row) in same}

    def _training(self, row: str) -> Any:
        arm = self.arms[row]
        return arm.recipe or self.config.recipe, leaves(arm.set), arm.starts, arm.soup


def make_plan(config: CompareConfig) -> Plan:
    """Which rows there will be, and in which order they are run."""
    scaled = config.scaled_arms
    arms: dict[str, Arm] = {}
    rows: dict[str, Sized] = {}
    order: list[str] = []
    for name, arm in config.arms.items():
        for size in config.sizes if name in scaled else (None,):
            row = name if size is None else _at(name, size)
            arms[row] = arm if size is None else _sized(arm, size, config)
            rows[row] = Sized(name, size)
    for name in config.ancestry():
        order += [row for row, of in rows.items() if of.arm == name]
    return Plan(config, arms, rows, tuple(order))


def leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key → value; nested sections and dotted keys mean the same."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _at(name: str, size: int) -> str:
    return f"{name} @ {size}"


def _sized(arm: Arm, size: int, config: CompareConfig) -> Arm:
    """An arm at one size; what it is made of is of that size too, where it comes in sizes."""

    def here(name: str) -> str:
        return _at(name, size) if name in config.scaled_arms else name

    if arm.soup is not None:
        return arm.model_copy(
            update={"soup": arm.soup.model_copy(update={"arms": tuple(here(name) for name in arm.soup.arms)})}
        )
    starts = {key: here(name) for key, name in arm.starts.items()}
    return arm.model_copy(update={"set": {**leaves(arm.set), config.size_key: size}, "init": starts or None})
