"""Metrics, and how sure they are. Everything named here is a pure function on tensors or arrays.

statistics.py      intervals, paired tests, several arms at once
classification.py  accuracy, per class, calibration, confusions
retrieval.py       pictures find texts and texts pictures: recall at k, median rank
captioning.py      captions against references: BLEU-4, ROUGE-L, CIDEr-D (caption_words.py, caption_measures.py)
questions.py       answers to questions about pictures: VQA v2's accuracy
distances.py       Fréchet, kernel (KID), CMMD, modality gap, precision and recall
two_sample.py      can a linear classifier tell two sets apart?
gap.py             all of these between a generated and a real set, with a reading
diversity.py       magnitude, direction, effective rank
synthesis.py       drawn pictures beside the real ones of their captions: kernel distance, CLIP-score, CLIP-I; FID, CMMD
collapse.py        does a dual encoder shrink: effective rank, uniformity, captions' cosine, modality gap; text drift
tasks.py           what multimodal models are measured on, by name: measure_task; task_files.py reads the tasks' files
text_tasks.py      questions and captions, as tasks; asked as well: yes_no.py, choice.py, knowledge.py, position.py
caption_retrieval.py, story_retrieval.py, composed_retrieval.py, winoground.py  tasks that search (target_ranks.py)
rag.py             answers with what was looked up: entries, retrievers, templates, the leakage check
features.py        pictures -> features by an encoder, cached on disk; import it (and tasks) by name: they need models
"""

from gen2real.evaluation.captioning import CaptionScores, caption_scores
from gen2real.evaluation.classification import ClassAccuracy, Classification, Confusion, classification_metrics
from gen2real.evaluation.collapse import Collapse, Drift, collapse_panel, text_drift
from gen2real.evaluation.distances import (
    Frechet,
    KernelDistance,
    ModalityGap,
    PrecisionRecall,
    cmmd,
    frechet,
    frechet_distance,
    kernel_distance,
    modality_gap,
    precision_recall,
)
from gen2real.evaluation.diversity import Diversity, direction, effective_rank, magnitude, measure_diversity
from gen2real.evaluation.gap import ClassGap, GapReport, measure_gap
from gen2real.evaluation.questions import normalised_answer, question_scores
from gen2real.evaluation.retrieval import (
    Ranking,
    Retrieval,
    caption_positives,
    picture_values,
    retrieval_metrics,
)
from gen2real.evaluation.statistics import (
    Interval,
    McNemar,
    PairedTest,
    bootstrap_interval,
    group_values,
    holm,
    mcnemar,
    paired_bootstrap,
    proportion_interval,
    seed_interval,
)
from gen2real.evaluation.synthesis import synthesis_details, synthesis_values
from gen2real.evaluation.two_sample import TwoSampleTest, two_sample_test

__all__ = [
    "CaptionScores",
    "ClassAccuracy",
    "ClassGap",
    "Classification",
    "Collapse",
    "Confusion",
    "Diversity",
    "Drift",
    "Frechet",
    "GapReport",
    "Interval",
    "KernelDistance",
    "McNemar",
    "ModalityGap",
    "PairedTest",
    "PrecisionRecall",
    "Ranking",
    "Retrieval",
    "TwoSampleTest",
    "bootstrap_interval",
    "caption_positives",
    "caption_scores",
    "classification_metrics",
    "cmmd",
    "collapse_panel",
    "direction",
    "effective_rank",
    "frechet",
    "frechet_distance",
    "group_values",
    "holm",
    "kernel_distance",
    "magnitude",
    "mcnemar",
    "measure_diversity",
    "measure_gap",
    "modality_gap",
    "normalised_answer",
    "paired_bootstrap",
    "picture_values",
    "precision_recall",
    "proportion_interval",
    "question_scores",
    "retrieval_metrics",
    "seed_interval",
    "synthesis_details",
    "synthesis_values",
    "text_drift",
    "two_sample_test",
]
