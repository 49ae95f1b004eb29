"""The embedded world: photographs of toys, rendered from a seed, with all that can be said of them."""

from __future__ import annotations

from gen2real.kit.world.image_sets import write_image_set
from gen2real.kit.world.language import (
    Question,
    caption,
    hard_negatives,
    long_caption,
    noisy_caption,
    questions,
)
from gen2real.kit.world.render import render
from gen2real.kit.world.scenes import Clutter, Scene, Toy, sample_scene
from gen2real.kit.world.stories import Story, sample_story
from gen2real.kit.world.task_files import STORIES, TASK_FILES, write_stories, write_tasks
from gen2real.kit.world.vocabulary import (
    COLOURS,
    DOMAINS,
    GROUNDS,
    HELD_OUT,
    KINDS,
    PATTERNS,
    SIDE,
    SIZES,
    SPLITS,
    Domain,
)

__all__ = [
    "COLOURS",
    "DOMAINS",
    "GROUNDS",
    "HELD_OUT",
    "KINDS",
    "PATTERNS",
    "SIDE",
    "SIZES",
    "SPLITS",
    "STORIES",
    "TASK_FILES",
    "Clutter",
    "Domain",
    "Question",
    "Scene",
    "Story",
    "Toy",
    "caption",
    "hard_negatives",
    "long_caption",
    "noisy_caption",
    "questions",
    "render",
    "sample_scene",
    "sample_story",
    "write_image_set",
    "write_stories",
    "write_tasks",
]
