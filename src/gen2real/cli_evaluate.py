"""gen2real evaluate: a finished model, measured on an image set."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from gen2real.cli_options import Json, Policy
from gen2real.cli_tables import print_table
from gen2real.errors import Gen2RealError

if TYPE_CHECKING:
    from gen2real.evaluation.classification import Classification
    from gen2real.evaluation.retrieval import Retrieval
    from gen2real.evaluation.tasks import TaskScores
    from gen2real.methods.finished_denoisers import Reranked
    from gen2real.methods.finished_drawings import Synthesised
    from gen2real.methods.finished_texts import Answered, Captioned

Task = Literal[
    "classification",
    "retrieval",
    "captioning",
    "questions",
    "synthesis",
    "diffusion-classification",
    "yes-no",
    "choice",
    "knowledge",
    "position",
    "story-retrieval",
    "composed-retrieval",
    "winoground",
]
Through = Literal["f_r", "f_g", "projection"]
RagTemplate = Literal["exemplar", "reference"]
OF_FILES = ("yes-no", "choice", "knowledge", "position", "story-retrieval", "composed-retrieval", "winoground")
"""Tasks of multimodal models that have a file of their own in place of an image set."""


def evaluate(
    model: Annotated[
        str,
        Parameter(
            help="a model folder or a run, or the hub name of a dual encoder, a multimodal model or a text-to-image "
            "pipeline"
        ),
    ],
    image_set: Annotated[Path, Parameter(help="an image set, or the JSON Lines of a task")],
    /,
    *,
    task: Annotated[
        Task | None,
        Parameter(
            help="[default: what --questions, --scorer or --rerank is for; captioning where a model in a folder "
            "writes; else classification, or retrieval without labels]"
        ),
    ] = None,
    through: Annotated[
        Through,
        Parameter(help="an aligned model's image tower: for real, for generated pictures"),
    ] = "f_r",
    questions: Annotated[Path | None, Parameter(help="JSONL: {image, question, answers} a line")] = None,
    templates: Annotated[str | None, Parameter(help="zero-shot: prompts, as imagenet-80 [default: simple]")] = None,
    prompts: Annotated[Path | None, Parameter(help="zero-shot: a CuPL file, instead of templates")] = None,
    scorer: Annotated[
        str | None, Parameter(help="synthesis: who looks at what is drawn; an encoder that was in no training of it")
    ] = None,
    rerank: Annotated[str | None, Parameter(help="retrieval: a text-to-image pipeline that ranks anew")] = None,
    candidates: Annotated[int | None, Parameter(help="--rerank: captions a picture [default: 5]")] = None,
    trials: Annotated[int | None, Parameter(help="--rerank: looks at each of them [default: 64]")] = None,
    weight: Annotated[float | None, Parameter(help="--rerank: by scale · cosine − WEIGHT · error")] = None,
    pictures: Annotated[
        int | None,
        Parameter(
            help="synthesis: captions to draw [default: 256]; diffusion-classification, --rerank: [default: all]"
        ),
    ] = None,
    steps: Annotated[int | None, Parameter(help="synthesis: [default: 20, or the pipeline's]")] = None,
    guidance: Annotated[float | None, Parameter(help="synthesis: [default: the pipeline's]")] = None,
    limit: Annotated[int | None, Parameter(help="tasks: the first so many items [default: all]")] = None,
    rag: Annotated[Path | None, Parameter(help="JSONL of questions and answers to look up")] = None,
    rag_count: Annotated[int | None, Parameter(help="--rag: put before a question [default: 1]")] = None,
    rag_template: Annotated[RagTemplate | None, Parameter(help="--rag: how they are put [default: exemplar]")] = None,
    rag_threshold: Annotated[float | None, Parameter(help="--rag: less similar ones are left out")] = None,
    rag_retriever: Annotated[str | None, Parameter(help="--rag: a dual encoder [default: the model itself]")] = None,
    on_unreadable: Policy = "error",
    json: Json = False,
) -> None:
    """Measure a model on an image set, or a multimodal model on the file of a task, with intervals.

    Classification: top-1 and top-5, per class, calibration, confusions.

    Retrieval, from pictures to captions and back: recall at 1, 5 and 10, median rank; --rerank: recall at 1 anew.

    Captioning: BLEU-4, ROUGE-L and CIDEr-D against the set's captions; METEOR and SPICE where pycocoevalcap is.

    Questions: the accuracy of VQA v2; of --questions about a set, or of a file of questions.

    Of multimodal models and files: yes-no (POPE), choice (lettered options), knowledge (ROUGE-L), position (the
    relevant pair at each place), story-retrieval, composed-retrieval, winoground. --rag: with what is most like a
    question put before it, picture, question and answer.

    Synthesis, of a picture drawn for each caption: kernel distance (KID), CLIP-score, CLIP-I, FID, CMMD.

    Diffusion classification: as classification, by a generator: of which class's prompt its denoiser makes least error.
    """
    options: dict[str, Any] = {"questions": questions, "templates": templates, "prompts": prompts, "scorer": scorer}
    options |= {"rerank": rerank, "candidates": candidates, "trials": trials, "weight": weight}
    options |= {"pictures": pictures, "steps": steps, "guidance": guidance}
    asked: dict[str, Any] = {"rag_count": rag_count, "rag_template": rag_template, "rag_threshold": rag_threshold}
    asked |= {"rag_retriever": rag_retriever}
    lookup = {name: value for name, value in asked.items() if value is not None}
    if rag is None and lookup:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in lookup)
        raise Gen2RealError(f"{given}: how to look up; add --rag FILE.jsonl, where to")
    if _is_of_multimodal(task, model, image_set, limit):
        options["through"] = None if through == "f_r" else through
        _evaluate_task(model, task, image_set, limit, {"rag": rag, **lookup}, options, json)
        return
    if rag is not None:
        raise Gen2RealError(
            "--rag is for questions of a file that a multimodal model answers: gen2real evaluate MODEL FILE.jsonl "
            f"--task questions --rag {rag}; or yes-no, choice, knowledge"
        )
    if limit is not None:
        raise Gen2RealError(
            "--limit is for the tasks of multimodal models: questions of a file, captioning, retrieval and "
            f"{', '.join(OF_FILES)}"
        )
    _evaluate_set(model, task, image_set, through=through, on_unreadable=on_unreadable, json=json, **options)


def _evaluate_set(
    model: str,
    task: Task | None,
    image_set: Path,
    *,
    through: Through,
    questions: Path | None,
    templates: str | None,
    prompts: Path | None,
    scorer: str | None,
    rerank: str | None,
    candidates: int | None,
    trials: int | None,
    weight: float | None,
    pictures: int | None,
    steps: int | None,
    guidance: float | None,
    on_unreadable: Policy,
    json: bool,
) -> None:
    from gen2real.imagesets import ImageSet
    from gen2real.methods import finished, finished_denoisers, finished_drawings, finished_texts

    measured = ImageSet.read(image_set)
    meant: Task | None = "synthesis" if scorer is not None else "retrieval" if rerank is not None else None
    task = task or meant or finished.task_of(measured, model, asked=questions is not None)
    _check(task, questions, templates, prompts)
    reranking = _reranking(task, rerank, candidates, trials, weight)
    _check_synthesis(task if rerank is None else "re-ranking", through, scorer, pictures, steps, guidance)
    found: Classification | Retrieval | Reranked | Captioned | Answered | Synthesised
    of_encoder: dict[str, Any] = {"through": through, "on_unreadable": on_unreadable}
    of_generator: dict[str, Any] = {"on_unreadable": on_unreadable, "quiet": json}
    if task == "synthesis":
        assert scorer is not None
        of_generator |= {"pictures": pictures or finished_drawings.PICTURES, "steps": steps, "guidance": guidance}
        found = finished_drawings.evaluate_synthesis(model, measured, scorer, **of_generator)
    elif task == "diffusion-classification":
        found = finished_denoisers.evaluate_diffusion_classification(
            model, measured, templates=templates, file=prompts, pictures=pictures, **of_generator
        )
    elif task == "classification":
        found = finished.evaluate_model(model, measured, templates=templates, file=prompts, **of_encoder)
    elif rerank is not None:
        found = finished_denoisers.evaluate_reranking(
            model, rerank, measured, pictures=pictures, through=through, **reranking, **of_generator
        )
    elif task == "retrieval":
        found = finished.evaluate_retrieval(model, measured, **of_encoder)
    elif task == "captioning":
        found = finished_texts.evaluate_captioning(model, measured, **of_encoder)
    else:
        assert questions is not None
        found = finished_texts.evaluate_questions(model, measured, questions, **of_encoder)
    if json:
        print(jsonlib.dumps(found.to_json(), allow_nan=False))
    else:
        _PRINTED["re-ranking" if rerank is not None else task](found)


def _is_of_multimodal(task: Task | None, model: str, path: Path, limit: int | None) -> bool:
    """Whether a multimodal model is measured on a task of `evaluation.tasks`."""
    if path.suffix == ".jsonl" and task in (None, "questions"):
        if task is None:
            raise Gen2RealError(
                f"{path} holds the items of a task; say which: --task questions, or one of {', '.join(OF_FILES)}"
            )
        return True
    if task != "retrieval":
        return task in OF_FILES or (task == "captioning" and limit is not None)
    from gen2real.models.multimodal import is_multimodal

    return is_multimodal(model)


def _evaluate_task(
    model: str,
    task: Task | None,
    path: Path,
    limit: int | None,
    lookup: Mapping[str, Any],
    options: Mapping[str, Any],
    json: bool,
) -> None:
    if given := [f"--{name}" for name, value in options.items() if value is not None]:
        raise Gen2RealError(f"{', '.join(given)}: not for --task {task} of a multimodal model; leave it out")
    from gen2real.methods.finished_tasks import evaluate_task

    assert task is not None
    found = evaluate_task(model, task, path, limit=limit, **lookup)
    if json:
        print(jsonlib.dumps(found.to_json(), allow_nan=False))
    else:
        _print_task(found)


def _check(task: str, questions: Path | None, templates: str | None, prompts: Path | None) -> None:
    if "classification" not in task and (templates is not None or prompts is not None):
        reads = {
            "retrieval": "retrieval reads the captions",
            "captioning": "captioning writes captions",
            "synthesis": "synthesis draws the captions",
        }
        raise Gen2RealError(f"--templates and --prompts are for classification; {reads.get(task, 'questions ask')}")
    if task == "questions" and questions is None:
        raise Gen2RealError("--task questions needs something to ask: add --questions FILE.jsonl")
    if task != "questions" and questions is not None:
        raise Gen2RealError(f"--questions is for --task questions; this is {task}")


def _reranking(
    task: str, rerank: str | None, candidates: int | None, trials: int | None, weight: float | None
) -> dict[str, Any]:
    """The options that were given, by name."""
    if rerank is not None and task != "retrieval":
        raise Gen2RealError(f"--rerank ranks captions anew, for --task retrieval; this is {task}")
    asked = {"candidates": candidates, "trials": trials, "weight": weight}
    given = {name: value for name, value in asked.items() if value is not None}
    if rerank is None and given:
        raise Gen2RealError(f"--{', --'.join(given)}: for re-ranking; add --rerank GENERATOR")
    return given


def _check_synthesis(
    task: str, through: str, scorer: str | None, pictures: int | None, steps: int | None, guidance: float | None
) -> None:
    asked = {"--scorer": scorer, "--pictures": pictures, "--steps": steps, "--guidance": guidance}
    given = [option for option, value in asked.items() if value is not None]
    if task != "synthesis":
        wrong = [
            option
            for option in given
            if option != "--pictures" or task not in ("diffusion-classification", "re-ranking")
        ]
        if wrong:
            raise Gen2RealError(f"{', '.join(wrong)}: for --task synthesis; this is {task}")
        if task == "diffusion-classification" and through != "f_r":
            raise Gen2RealError(f"--through {through} is for aligned encoders; this asks a generator. Leave it out.")
        if pictures is not None and pictures < 1:
            raise Gen2RealError(f"--pictures {pictures}: give at least 1")
        return
    if scorer is None:
        raise Gen2RealError(
            "--task synthesis needs eyes to look at what is drawn: add --scorer ENCODER, a dual encoder or an image "
            "encoder that was in no training of the generator"
        )
    if through != "f_r":
        raise Gen2RealError(f"--through {through} is for aligned encoders; this draws pictures. Leave it out.")
    if pictures is not None and pictures < 2:
        raise Gen2RealError(f"--pictures {pictures}: a distance between sets needs at least 2")


def _print_classification(found: Classification) -> None:
    lines = [
        ["top-1", found.top1.percent()],
        ["top-5", found.top5.percent()],
        ["mean per class", f"{100 * found.mean_per_class:.1f} %"],
        ["calibration error", f"{found.calibration_error:.3f}"],
        ["pictures", str(found.count)],
    ]
    print_table(["measure", "value"], lines)
    if found.confusions:
        print()
        rows = [[one.true_name, one.predicted_name, str(one.count)] for one in found.confusions[:10]]
        print_table(["true", "taken for", "times"], rows)


def _print_retrieval(found: Retrieval) -> None:
    both = found.image_to_text, found.text_to_image
    lines = [
        [f"recall@{k}", *(f"{one.recall[k].percent()}, chance {100 * one.chance[k]:.1f} %" for one in both)]
        for k in both[0].recall
    ]
    lines.append(["median rank", *(f"{one.median_rank:g}" for one in both)])
    lines.append(["searched", *(f"{one.queries} among {one.gallery}" for one in both)])
    print_table(["measure", "pictures → texts", "texts → pictures"], lines)


def _print_reranked(found: Reranked) -> None:
    _print_retrieval(found.retrieval)
    print()
    weighed = "the denoiser's error" if found.weight is None else f"scale · cosine − {found.weight:g} · error"
    lines = [
        ["recall@1 before", found.before.percent()],
        [f"recall@1 by {weighed}", found.after.percent()],
        ["change", found.change.percent()],
        [f"a right one among the {found.candidates}", found.at_most.percent()],
        ["pictures", f"{len(found.ids)}, {found.trials} trials a caption"],
    ]
    print_table([f"pictures → texts, {found.candidates} ranked anew", "value"], lines)


def _print_captioning(found: Captioned) -> None:
    from gen2real.evaluation.statistics import bootstrap_interval
    from gen2real.methods.measures import Measure

    lines = []
    for name, values in found.scores.values.items():
        measure = Measure(name)
        lines.append([measure.name, measure.interval(bootstrap_interval(values))])
    print_table(["measure", "value"], [*lines, ["pictures", str(len(found.ids))]])
    for note in found.scores.notes:
        print(f"Note: {note}")
    print()
    print_table(["picture", "caption"], [list(one) for one in list(zip(found.ids, found.captions, strict=True))[:5]])


def _print_questions(found: Answered) -> None:
    lines = [
        ["accuracy", found.accuracy.percent()],
        ["questions", f"{len(found.questions)} about {found.pictures} picture(s)"],
    ]
    print_table(["measure", "value"], lines)
    print()
    told = list(zip(found.questions, found.answers, strict=True))[:5]
    print_table(["question", "answer", "right"], [[one.question, said, ", ".join(one.answers)] for one, said in told])


def _print_synthesis(found: Synthesised) -> None:
    from gen2real.evaluation.statistics import bootstrap_interval
    from gen2real.methods.measures import Measure

    lines = []
    for name, values in found.values.items():
        measure = Measure(name)
        lines.append([measure.heading, measure.interval(bootstrap_interval(values))])
    fid, told = found.details["fid"], found.drawing
    lines.append(["FID ↓", f"{fid['distance']:.4g}, by chance about {fid['chance_shift'] + fid['chance_spread']:.3g}"])
    lines.append(["CMMD ↓", f"{found.details['cmmd']:.4g}"])
    guided = "" if told["guidance"] is None else f", guidance {told['guidance']:g}"
    lines.append(["pictures", f"{len(found.ids)}, {told['steps']} steps of {told['scheduler']}{guided}"])
    print_table(["measure", "value"], lines)
    for note in found.notes:
        print(f"Note: {note}")


def _print_task(found: TaskScores) -> None:
    from gen2real.evaluation.statistics import bootstrap_interval
    from gen2real.methods.measures import Measure

    lines = []
    for name, values in found.values.items():
        measure = Measure(name)
        lines.append([measure.heading, measure.interval(bootstrap_interval(values)), str(len(values))])
    # What else there is to know as one number; tables by category are in --json.
    for name, told in found.details.items():
        if isinstance(told, Mapping) and "mean" in told:
            lines.append([Measure(name).name, f"{100 * told['mean']:.1f} %", str(told["count"])])
    print_table(["measure", "value", "items"], lines)
    if (told := found.details.get("looked_up")) is not None:
        alike = "" if told["similarity"] is None else f", similarity {told['similarity']:.2f}"
        about = told["questions_about_pictures_in_it"]
        shared = f"; {about} question(s) are about a picture that is among them" if about else ""
        print(f"Looked up: {told['found']:g} of {told['entries']} a question{alike}{shared}")
    for note in found.notes:
        print(f"Note: {note}")
    if said := [one for one in found.samples if "answer" in one][:5]:
        print()
        rows = [[" ".join(one["question"].split()), one["answer"], ", ".join(one["references"])] for one in said]
        print_table(["question", "answer", "right"], rows)


_PRINTED: Mapping[str, Callable[[Any], None]] = {
    "classification": _print_classification,
    "diffusion-classification": _print_classification,
    "retrieval": _print_retrieval,
    "re-ranking": _print_reranked,
    "captioning": _print_captioning,
    "questions": _print_questions,
    "synthesis": _print_synthesis,
}
