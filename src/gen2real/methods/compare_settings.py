"""What a recipe of method `compare` may say: arms, seeds, where an arm starts from, and sizes to run it at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from gen2real.config import Config, RecipePath, RecipeValues, nearest


class SoupOf(Config):
    """A soup as an arm: of the runs of other arms, seed by seed, or of one arm's seeds in a single model."""

    arms: tuple[str, ...] = Field(min_length=1)
    over: Literal["arms", "seeds"] = "arms"
    kind: Literal["uniform", "greedy"] = "uniform"
    include_zero_shot: bool = False


class Arm(Config):
    """One row of the table: a recipe, what is changed in it, and which reading of the training counts.

    With `init` it starts where another arm ended: each of its seeds from that arm's run of the same seed.
    """

    recipe: RecipePath | None = None
    set: RecipeValues = Field({}, description="dotted key → value, over the recipe")
    reading: str | None = Field(None, description="None: a classifier's blend; else the one its method is judged by")
    soup: SoupOf | None = None
    init: str | dict[str, str] | None = Field(
        None, description="the arm whose run it starts from; or several: key of the recipe → arm"
    )
    into: str | None = Field(
        None, description="the key of the recipe that takes the run of the one arm of `init`; None: encoder.init"
    )
    seeds: tuple[int, ...] | None = None
    note: str = ""

    @property
    def starts(self) -> dict[str, str]:
        """Key of the recipe → the arm whose run it takes."""
        if self.init is None:
            return {}
        return {self.into or "encoder.init": self.init} if isinstance(self.init, str) else dict(self.init)

    @model_validator(mode="after")
    def _one_way_to_say_where(self) -> Arm:
        if not isinstance(self.init, str) and self.into is not None:
            raise ValueError("into says where the run of the one arm of init goes; give init: NAME, or leave into out")
        return self


class CompareConfig(Config):
    """Arms × seeds. `against` names the arms that every other one is tested against, picture by picture.

    With `sizes` every arm of `scaled` is run at each size, and tested against the others at the same size.
    """

    method: Literal["compare"] = "compare"
    output: Path
    recipe: RecipePath | None = None
    set: RecipeValues = Field({}, description="dotted key → value, over every arm's recipe")
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    arms: dict[str, Arm] = Field(min_length=1)
    against: tuple[str, ...] = ()
    measures: tuple[str, ...] | None = Field(
        None, description="columns, where arms are measured by more than top-1; None: each reading's primary ones"
    )
    sizes: tuple[int, ...] = Field((), description="of the data; each arm of `scaled` is run at every one")
    size_key: str = "data.pictures"
    scaled: tuple[str, ...] | None = Field(None, description="arms that are run at every size; None: all of them")

    @property
    def scaled_arms(self) -> tuple[str, ...]:
        """The arms that are run at every size."""
        if not self.sizes:
            return ()
        return tuple(self.arms) if self.scaled is None else self.scaled

    def ancestry(self) -> list[str]:
        """All arms, each after those that it starts from. Raises: ValueError where arms start from each other."""
        found: dict[str, None] = {}

        def visit(name: str, below: tuple[str, ...]) -> None:
            if name in below:
                circle = " → ".join([*below[below.index(name) :], name])
                raise ValueError(f"arms start from each other in a circle: {circle}")
            for other in self.arms[name].starts.values():
                visit(other, (*below, name))
            found[name] = None

        for name in self.arms:
            visit(name, ())
        return list(found)

    @field_validator("sizes")
    @classmethod
    def _different_counts(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(size < 1 for size in value) or len(set(value)) < len(value):
            raise ValueError("sizes are counts of at least 1, each given once, as [500, 1000, 2000]")
        return value

    @model_validator(mode="after")
    def _named_arms(self) -> CompareConfig:
        for where, name in self._references():
            if name not in self.arms:
                near = nearest(name, self.arms)
                raise ValueError(f"{where} names an arm that is not there{f'; did you mean {near}?' if near else ''}")
            if not where.startswith(("against", "scaled")) and self.arms[name].soup is not None:
                raise ValueError(f"{where} names {name}, which is a soup itself; name arms that are trained")
        for name, arm in self.arms.items():
            if arm.soup is not None and (arm.recipe or arm.set or arm.seeds):
                raise ValueError(f"arm {name} is a soup of what other arms trained: recipe, set and seeds belong there")
            if arm.soup is not None and arm.init is not None:
                raise ValueError(f"arm {name} is a soup of what other arms trained; it starts nowhere; leave out init")
            if arm.soup is None and arm.recipe is None and self.recipe is None:
                raise ValueError(f"arm {name} has no recipe; give it one, or set recipe for all arms")
        return self

    @model_validator(mode="after")
    def _runs_to_start_from(self) -> CompareConfig:
        self.ancestry()
        for name, arm in self.arms.items():
            for other in arm.starts.values():
                there = self.arms[other].seeds or self.seeds
                missing = [seed for seed in arm.seeds or self.seeds if seed not in there]
                if missing:
                    raise ValueError(
                        f"arm {name} starts from {other}'s run of the same seed, and {other} has no seed "
                        f"{', '.join(map(str, missing))}; it has {', '.join(map(str, there))}"
                    )
        return self

    @model_validator(mode="after")
    def _sizes_that_fit(self) -> CompareConfig:
        if self.scaled is not None and not self.sizes:
            raise ValueError("scaled names arms to run at each of sizes, and there are none; set sizes=[500, 1000, …]")
        scaled = self.scaled_arms
        for name, arm in self.arms.items():
            inner = {*arm.starts.values(), *(arm.soup.arms if arm.soup else ())} & {*scaled}
            if inner and name not in scaled:
                raise ValueError(
                    f"arm {name} takes the runs of {' and '.join(sorted(inner))}, which there is one of for each "
                    f"size; add {name} to scaled"
                )
            if arm.soup is not None and name in scaled and not inner:
                raise ValueError(f"arm {name} is a soup of arms that are not scaled; take it out of scaled")
        return self

    def _references(self) -> Iterator[tuple[str, str]]:
        yield from ((f"against: {name}", name) for name in self.against)
        yield from ((f"scaled: {name}", name) for name in self.scaled or ())
        for arm, of in self.arms.items():
            if of.soup is not None:
                yield from ((f"{arm}: soup", name) for name in of.soup.arms)
            yield from ((f"{arm}: init", name) for name in of.starts.values())
