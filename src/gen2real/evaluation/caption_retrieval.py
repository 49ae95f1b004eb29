"""The task `retrieval`: pictures find their captions and captions their pictures, by an MLLM's embeddings."""

from __future__ import annotations

from gen2real.evaluation.retrieval import caption_positives, picture_values, retrieval_metrics
from gen2real.evaluation.task_files import read_captioned
from gen2real.evaluation.tasks import TaskInput, TaskScores


def measure_retrieval(given: TaskInput) -> TaskScores:
    """Recall both ways over an image set's captioned pictures, an item a picture: as `retrieval_metrics` of CLIP.

    A picture and a caption are each embedded as a content of their own. Measures: `image_to_text_recall@1`, `@5`,
    `@10`, and `text_to_image_…`.

    Raises: ImageSetError as `read_captioned`; ModelError; Unreadable.
    """
    captioned = read_captioned(given.path)
    shown = captioned.select(list(given.first(range(len(captioned)))))
    texts, positives = caption_positives(shown.captions)
    image = given.embed([[path] for path in shown.paths])
    text = given.embed([[caption] for caption in texts])
    found = retrieval_metrics(image, text, positives)
    return TaskScores(picture_values(found, positives, len(shown)), {"pictures": len(shown), **found.to_json()})
