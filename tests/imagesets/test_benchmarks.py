"""Importers of public benchmarks, each on a small copy of the layout that it is published in."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pictures import save
from pyarrow import parquet

from commands import gen2real_
from gen2real.errors import ImageSetError
from gen2real.evaluation.choice import read_choices
from gen2real.evaluation.knowledge import read_knowledge
from gen2real.evaluation.position import read_positions
from gen2real.evaluation.submissions import read_put
from gen2real.evaluation.winoground import read_twins
from gen2real.evaluation.yes_no import read_yes_no
from gen2real.imagesets import import_benchmark, read_questions
from gen2real.imagesets.importers import BENCHMARKS
from gen2real.imagesets.importers.benchmarks import SHORT

READERS: Mapping[str | None, Callable[[Path], Any]] = {
    "questions": read_questions, "yes-no": read_yes_no, "choice": read_choices, "knowledge": read_knowledge,
    "winoground": read_twins, "position": read_positions, None: read_put,
}  # fmt: skip
"""Who reads a task's file."""


def files(root: Path, content: Mapping[str, Any]) -> Path:
    """Writes a folder: path → JSON, text, bytes, or None for an empty picture."""
    for name, value in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if value is None or isinstance(value, bytes):
            path.write_bytes(value or b"")
        else:
            path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return root


def lines(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def picture(root: Path, seed: int = 0) -> bytes:
    return save(root / "drawn.png", seed).read_bytes()


def imported(benchmark: str, source: Path, **more: Any) -> list[Any]:
    """What its task reads of what was imported."""
    out = source.parent / f"{benchmark}.jsonl"
    out.unlink(missing_ok=True)
    made = import_benchmark(benchmark, source, out, **more)
    found = READERS[BENCHMARKS[benchmark].task](made.path)
    assert made.items == len(found)
    assert made.unanswered == 0 or BENCHMARKS[benchmark].task is None
    return list(found)


def vqa(split: str, *, annotations: bool = True) -> dict[str, Any]:
    asked = [
        {"image_id": 42, "question": "What is this?", "question_id": 42000},
        {"image_id": 9, "question": "Is it red?", "question_id": 9001},
    ]
    content: dict[str, Any] = {
        f"v2_OpenEnded_mscoco_{split}_questions.json": {"data_subtype": split, "questions": asked},
    }
    if annotations:
        said = [
            {"question_id": 9001, "image_id": 9, "answers": [{"answer": "yes", "answer_id": n} for n in range(10)]},
            {"question_id": 42000, "image_id": 42, "answers": [{"answer": word} for word in ("a cat", "cat")]},
        ]
        content[f"v2_mscoco_{split}_annotations.json"] = {"annotations": said}
    return content


class TestOpenQuestions:
    def test_vqav2(self, tmp_path: Path) -> None:
        coco = files(
            tmp_path / "coco", {"val2014/COCO_val2014_000000000042.jpg": None, "val2017/000000000009.jpg": None}
        )
        source = files(tmp_path / "vqa", vqa("val2014"))
        first, second = imported("vqav2", source, pictures=coco)
        assert (first.id, first.picture) == ("42000", coco / "val2014" / "COCO_val2014_000000000042.jpg")
        assert (first.question, first.answers) == (f"What is this?\n{SHORT}", ("a cat", "cat"))
        # As COCO has called its pictures since 2017.
        assert (second.picture, second.answers) == (coco / "val2017" / "000000000009.jpg", ("yes",) * 10)

    def test_a_hidden_test_has_no_answers(self, tmp_path: Path) -> None:
        names = [f"test2015/COCO_test2015_{number:012d}.jpg" for number in (42, 9)]
        source = files(tmp_path / "vqa", {**vqa("test-dev2015", annotations=False), **dict.fromkeys(names)})
        made = import_benchmark("vqav2", source, tmp_path / "out.jsonl", split="test-dev2015", instruction="")
        assert (made.items, made.unanswered, made.pictures) == (2, 2, 2)
        put = read_put(made.path)
        assert [(one.benchmark, one.submission, one.asked.question) for one in put] == [
            ("vqav2", {"question_id": 42000}, "What is this?"), ("vqav2", {"question_id": 9001}, "Is it red?"),
        ]  # fmt: skip
        with pytest.raises(ImageSetError, match="it needs 'answers'"):
            read_questions(made.path)

    def test_gqa(self, tmp_path: Path) -> None:
        one = {"imageId": "n1", "question": "Who?", "answer": "girl", "fullAnswer": "It is a girl."}
        content = {"q/testdev_balanced_questions.json": {"201": one}, "images/n1.jpg": None}
        (found,) = imported("gqa", files(tmp_path / "gqa", content))
        assert (found.id, found.picture.name, found.answers) == ("201", "n1.jpg", ("girl",))

    def test_vizwiz(self, tmp_path: Path) -> None:
        name = "VizWiz_val_00000000.jpg"
        one = {
            "image": name, "question": "Ok. What?", "answerable": 0, "answer_type": "unanswerable",
            "answers": [{"answer": "unanswerable", "answer_confidence": "yes"}],
        }  # fmt: skip
        source = files(tmp_path / "vizwiz", {"Annotations/val.json": [one], f"val/{name}": None})
        (found,) = imported("vizwiz", source)
        assert (found.id, found.answers) == (name, ("unanswerable",))
        assert found.question.splitlines()[1].endswith("respond with 'Unanswerable'.")

    def test_textvqa(self, tmp_path: Path) -> None:
        one = {
            "question_id": 34602,
            "image_id": "003a",
            "question": "brand?",
            "answers": ["nous"] * 10,
            "set_name": "val",
        }
        content = {"TextVQA_0.5.1_val.json": {"data": [one]}, "train_images/003a.jpg": None}
        (found,) = imported("textvqa", files(tmp_path / "textvqa", content))
        assert (found.id, found.answers, found.picture.parent.name) == ("34602", ("nous",) * 10, "train_images")

    def test_those_that_others_judge(self, tmp_path: Path) -> None:
        one = {
            "imagename": "v1_0.png",
            "question": "What is x?",
            "answer": "-1 <AND> -5",
            "capability": ["ocr", "math"],
        }
        source = files(tmp_path / "vet", {"mm-vet.json": {"v1_0": one}, "images/v1_0.png": None})
        (found,) = imported("mm-vet", source)
        assert (found.id, found.submission, found.asked.question) == ("v1_0", {"id": "v1_0"}, "What is x?")
        asked = {"question_id": 3, "image": "001.jpg", "text": "Name it.", "category": "conv"}
        source = files(tmp_path / "wild", {"questions.jsonl": lines(asked), "images/001.jpg": None})
        (found,) = imported("llava-wild", source)
        assert found.submission == {"question_id": 3, "prompt": "Name it."}


def seen_on(*numbers: int) -> list[dict[str, Any]]:
    """WebQA's sources that are pictures."""
    return [{"image_id": number, "title": "t", "caption": f"on {number}"} for number in numbers]


class TestYesOrNo:
    def test_pope(self, tmp_path: Path) -> None:
        def asked(number: int, label: str) -> dict[str, Any]:
            text = "Is there a dog in the image?"
            return {"question_id": number, "image": "COCO_val2014_000000000001.jpg", "text": text, "label": label}

        source = files(
            tmp_path / "pope",
            {
                "coco/coco_pope_random.json": lines(asked(1, "yes"), asked(2, "no")),
                "coco/coco_pope_popular.json": lines(asked(1, "no")),
                "gqa/gqa_pope_random.json": lines(asked(1, "yes")),
                "val2014/COCO_val2014_000000000001.jpg": None,
            },
        )
        found = imported("pope", source)
        assert [(one.id, one.yes, one.category) for one in found] == [
            ("popular-1", False, "popular"), ("random-1", True, "random"), ("random-2", False, "random"),
        ]  # fmt: skip
        assert found[0].asked.question == f"Is there a dog in the image?\n{SHORT}"

    def test_mme_in_both_of_its_layouts(self, tmp_path: Path) -> None:
        text = "Is it art? Please answer yes or no.\tYes\nIs it a cat? Please answer yes or no.\tNo\n\n"
        source = files(
            tmp_path / "MME_Benchmark",
            {
                "count/0001.txt": text, "count/0001.png": None,
                "artwork/images/10.jpg": None, "artwork/questions_answers_YN/10.txt": text,
                "eval_tool/LaVIN/count.txt": "0001.png\tIs it?\tYes\tYes\n",
            },
        )  # fmt: skip
        found = imported("mme", source)
        assert [(one.id, one.yes, one.category) for one in found] == [
            ("artwork/10-1", True, "artwork"), ("artwork/10-2", False, "artwork"),
            ("count/0001-1", True, "count"), ("count/0001-2", False, "count"),
        ]  # fmt: skip
        assert found[0].asked.question == "Is it art? Please answer yes or no."
        assert [one.asked.pictures[0].name for one in found[1:3]] == ["10.jpg", "0001.png"]


class TestChoices:
    def test_scienceqa(self, tmp_path: Path) -> None:
        def problem(image: str | None, hint: str) -> dict[str, Any]:
            return {
                "question": "Which?", "choices": ["Ann", "both"], "answer": 1, "hint": hint, "image": image,
                "split": "test", "subject": "natural science",
            }  # fmt: skip

        content = {
            "problems.json": {"4": problem("image.png", "Look."), "5": problem(None, ""), "6": problem(None, "")},
            "pid_splits.json": {"train": ["6"], "test": ["5", "4"]},
            "test/4/image.png": None, "test/7/image.png": None, "train/4/image.png": None,
        }  # fmt: skip
        source = files(tmp_path / "sqa", content)
        plain, seen = imported("scienceqa", source)
        assert (plain.id, plain.pictures, plain.category) == ("5", (), "without a picture")
        assert (seen.question, seen.options, seen.answer) == ("Context: Look.\nWhich?", ("Ann", "both"), 1)
        assert seen.pictures == (source / "test" / "4" / "image.png",)
        with pytest.raises(ImageSetError, match=r"no split 'tests'; it has train, test \(--split\)"):
            imported("scienceqa", source, split="tests")

    def test_mmbench(self, tmp_path: Path) -> None:
        seen = base64.b64encode(picture(tmp_path)).decode()
        table = "\t".join(
            ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "l2-category"]
        )
        rows = [
            ["241", "Which?", "A map.", "one", "two", "three", "nan", "B", "c", seen, "coarse"],
            ["1000241", "Which?", "A map.", "two", "three", "one", "", "A", "c", "241", "coarse"],
            ["242", '"Is ""it""?"', "nan", "yes", "no", "", "", "A", "c", seen, ""],
        ]
        text = "\n".join([table, *("\t".join(row) for row in rows)]) + "\n"
        source = files(tmp_path / "mmb", {"MMBench_DEV_EN.tsv": text})
        found = imported("mmbench", source)
        assert [(one.options, one.answer, one.group, one.category) for one in found] == [
            (("one", "two", "three"), 1, "241", "coarse"), (("two", "three", "one"), 0, "241", "coarse"),
            (("yes", "no"), 0, "242", "c"),
        ]  # fmt: skip
        assert (found[0].question, found[2].question) == ("A map.\nWhich?", 'Is "it"?')
        # The same content is one picture, so that its questions are one item.
        (where,) = {one.pictures for one in found}
        assert (where[0].parent, where[0].suffix) == (tmp_path / "mmbench-pictures", ".png")
        assert where[0].read_bytes() == picture(tmp_path)
        assert read_put(tmp_path / "mmbench.jsonl")[2].submission == {
            "index": 242, "question": 'Is "it"?', "A": "yes", "B": "no",
        }  # fmt: skip

    def test_mmbench_that_is_torn(self, tmp_path: Path) -> None:
        head = "index\tquestion\tA\tB\tC\timage\tanswer\n"
        no_picture = base64.b64encode(b"x" * 60).decode()
        bad = f"1\twhat\tx\ty\t\t7\tA\n2\twhat\tx\t\ty\t{no_picture}\tA\n3\twhat\tx\ty\t\t{no_picture}\tC\n"
        bad += f"4\twhat\tx\ty\t\t{no_picture}\tB\n5\twhat\tx\ty\t\t{'*' * 80}\tB\n"
        source, out = files(tmp_path / "mmb", {"dev.tsv": head + bad}), tmp_path / "out.jsonl"
        with pytest.raises(ImageSetError) as caught:
            import_benchmark("mmbench", source, out)
        told = str(caught.value).splitlines()
        assert told[0] == "5 of 5 samples cannot be used:"
        assert told[1] == "  1: it has no picture, and there is no row '7' that has one"
        assert told[2] == "  2: its options are A, C"
        assert told[3] == "  3: the answer 'C' is no letter of 2 options"
        assert told[4].startswith("  4: what stands for a picture is none: it begins with b'xxxx")
        assert told[5].startswith("  5: its picture is not base64")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["mmb"]

    def test_mmmu(self, tmp_path: Path) -> None:
        def row(id: str, question: str, options: str, answer: str, kind: str = "multiple-choice") -> dict[str, Any]:
            shown = {
                f"image_{n}": {"bytes": picture(tmp_path, n), "path": None} if n < 4 else None for n in range(1, 8)
            }
            return {
                "id": id,
                "question": question,
                "options": options,
                "answer": answer,
                "question_type": kind,
                **shown,
            }

        marks = "['<image 1>', 'the <image 1>', \"it's\"]"
        rows = [
            row("v_1", "See <image 2>: which <image 1>?", "['$6', '$7']", "B"),
            row("v_2", "Which of <image 3>?", marks, "A"),
            row("v_3", "How many?", "[]", "7", "open"),
            row("v_4", "Whose <image 1>?", "['x', 'y']", "?"),
        ]
        folder = tmp_path / "mmmu" / "Art_Theory"
        folder.mkdir(parents=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows[:3]), folder / "validation-00000-of-00001.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows[3:]), folder / "test-00000-of-00001.parquet")
        first, second = imported("mmmu", tmp_path / "mmmu")
        assert (first.question, first.options, first.answer) == ("See <image>: which <image>?", ("$6", "$7"), 1)
        assert (first.category, first.id) == ("Art Theory", "v_1")
        assert [one.read_bytes() for one in first.pictures] == [picture(tmp_path, 2), picture(tmp_path, 1)]
        assert (second.question, second.options) == ("Which of <image>?", ("<image>", "the image 1", "it's"))
        assert [one.read_bytes() for one in second.pictures] == [picture(tmp_path, 3), picture(tmp_path, 1)]
        made = import_benchmark("mmmu", tmp_path / "mmmu", tmp_path / "dev.jsonl")
        assert made.left_out == {"open questions": 1}
        assert import_benchmark("mmmu", tmp_path / "mmmu", tmp_path / "t.jsonl", split="test").unanswered == 1
        (folder / "dev-00000-of-00001.parquet").write_bytes(b"no table")
        with pytest.raises(ImageSetError, match="is no Parquet file that can be read"):
            imported("mmmu", tmp_path / "mmmu", split="dev")

    def test_seed(self, tmp_path: Path) -> None:
        def asked(id: str, kind: str, of: int) -> dict[str, Any]:
            choices = {f"choice_{letter}": letter * 3 for letter in "abcd"}
            return {
                "answer": "C", "data_id": "1454426_25", "data_type": kind, "question": "How many?", "question_id": id,
                "question_type_id": of, **choices,
            }  # fmt: skip

        content = {
            "SEED-Bench.json": {
                "questions": [asked("101669", "image", 5), asked("3", "video", 10)],
                "question_type": {"Instances Counting": 5, "Action Recognition": 10},
            },
            "SEED-Bench-image/1454426_25": None,
        }
        source = files(tmp_path / "seed", content)
        (found,) = imported("seed", source)
        assert (found.id, found.options, found.answer) == ("101669", ("aaa", "bbb", "ccc", "ddd"), 2)
        assert (found.category, found.pictures[0].name) == ("Instances Counting", "1454426_25")
        made = import_benchmark("seed", source, tmp_path / "again.jsonl")
        assert made.left_out == {"questions about videos": 1}


class TestSeveralPictures:
    def test_winoground(self, tmp_path: Path) -> None:
        one = {
            "id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "a b", "caption_1": "b a",
            "collapsed_tag": "Object", "tag": "Adjective", "num_main_preds": 1,
        }  # fmt: skip
        content = {
            "data/examples.jsonl": lines(one),
            "data/images/ex_0_img_0.png": None, "data/images/ex_0_img_1.png": None,
        }  # fmt: skip
        (found,) = imported("winoground", files(tmp_path / "w", content))
        assert [path.name for path in found.pictures] == ["ex_0_img_0.png", "ex_0_img_1.png"]
        assert (found.captions, found.category) == (("a b", "b a"), "Object")

    def test_webqa(self, tmp_path: Path) -> None:
        def asked(split: str, *images: int) -> dict[str, Any]:
            return {
                "Q": '"Who built it?"', "A": ['"The Romans."'], "split": split, "Qcate": "choose",
                "img_posFacts": [{"image_id": id, "title": f"t {id}", "caption": " a  bridge"} for id in images],
                "img_negFacts": [], "txt_negFacts": [{"fact": "No."}], "txt_posFacts": [{"fact": "It is Roman."}],
            }  # fmt: skip

        content = {"WebQA_train_val.json": {"g1": asked("val", 30000001), "g2": asked("train", 30000000)}}
        seen = [f"{30000000 + n}\t{base64.b64encode(picture(tmp_path, n)).decode()}\n" for n in (0, 1)]
        tables = {"imgs.tsv": "".join(seen), "imgs.lineidx": f"0\n{len(seen[0])}\n"}
        (found,) = imported("webqa", files(tmp_path / "web", {**content, **tables}))
        assert (found.id, found.question, found.answers) == ("g1", "Who built it?", ("The Romans.",))
        assert [one.text for one in found.facts] == ["a bridge", "It is Roman."]
        assert found.facts[0].picture.read_bytes() == picture(tmp_path, 1)
        assert found.pictures == ()
        # Pictures as files, as people take them out of the table.
        (found,) = imported("webqa", files(tmp_path / "loose", {**content, "imgs/30000000.jpg": None}), split="train")
        assert found.facts[0].picture == tmp_path / "loose" / "imgs" / "30000000.jpg"
        broken = files(tmp_path / "broken", {**content, **tables, "imgs.lineidx": "0\n5\n"})
        with pytest.raises(ImageSetError, match="not to the picture 30000001"):
            imported("webqa", broken)

    def test_webqa_among_distractors(self, tmp_path: Path) -> None:
        def asked(*others: int) -> dict[str, Any]:
            return {
                "Q": "Who?", "A": ["I."], "split": "val", "img_posFacts": seen_on(0), "img_negFacts": seen_on(*others),
                "txt_posFacts": [{"fact": "right"}], "txt_negFacts": [{"fact": f"wrong {n}"} for n in others],
            }  # fmt: skip

        content = {"WebQA_train_val.json": {f"g{n}": asked(1, 2, 3) for n in range(8)} | {"few": asked()}}
        source = files(tmp_path / "web", {**content, **dict.fromkeys(f"{n}.jpg" for n in range(4))})
        right, wrong = {"on 0", "right"}, {f"{kind} {n}" for kind in ("on", "wrong") for n in (1, 2, 3)}
        for wanted, among in ((0, 0), (2, 2), (20, 6)):
            *found, few = imported("webqa", source, distractors=wanted)
            told = [[fact.text for fact in one.facts] for one in found]
            assert {one.text for one in few.facts} == right
            for texts in told:
                assert right <= set(texts) <= right | wrong
                assert len(texts) == len(set(texts)) == 2 + among
            # Not all alike, and the same once more.
            assert (len({tuple(texts) for texts in told}) > 1) == (among > 0)
            again = imported("webqa", source, distractors=wanted)
            assert [[fact.text for fact in one.facts] for one in again[:-1]] == told
        for benchmark, count, said in (("gqa", 2, "facts of gqa. It is for webqa"), ("webqa", -1, "give 0 or more")):
            with pytest.raises(ImageSetError, match=f"--distractors {count}: .*{said}"):
                import_benchmark(benchmark, source, tmp_path / "out.jsonl", distractors=count)

    def test_webqa_position(self, tmp_path: Path) -> None:
        def asked(answer: str, kind: str = "YesNo", right: int = 1, others: int = 7, **more: Any) -> dict[str, Any]:
            facts = {"img_posFacts": seen_on(*range(right)), "img_negFacts": seen_on(*range(3, 3 + others))}
            return {"Q": '"Is it?"', "A": [answer], "split": "val", "Qcate": kind, "txt_posFacts": [], **facts, **more}

        questions = {
            "a": asked('"Yes, it is not small."'), "b": asked("No"), "c": asked("no trees are here"),
            "d": asked('"Yes, both."', "Others"), "e": asked("NO.", "text"),
            # Answers to something else, of more than one source, and with too few to distract.
            "no trees": asked("No trees are here.", "number"), "none": asked("None are."),
            "blue": asked("Blue.", "color"), "unlike": asked("", A=["Yes.", "No."]),
            "two": asked("Yes.", right=2), "read": asked("Yes.", txt_posFacts=[{"fact": "It is."}]),
            "few": asked("Yes.", others=4),
        }  # fmt: skip
        content: dict[str, Any] = {"WebQA_train_val.json": questions, **dict.fromkeys(f"{n}.jpg" for n in range(8))}
        source = files(tmp_path / "web", content)
        found = imported("webqa-position", source)
        assert [(one.id, *one.answers) for one in found] == [
            ("a", "yes"), ("b", "no"), ("c", "no"), ("d", "yes"), ("e", "no"),
        ]  # fmt: skip
        for one in found:
            assert (one.question, one.pictures, one.relevant) == ("Is it?", (), 0)
            assert [(pair.picture, pair.text) for pair in one.pairs] == [
                (source / f"{n}.jpg", f"on {n}") for n in (0, 3, 4, 5, 6, 7)
            ]
        done = gen2real_("import", "benchmark", "webqa-position", source, "--out", tmp_path / "told.jsonl")
        told, command = done.out.splitlines()
        assert told.startswith(f"{tmp_path / 'told.jsonl'}: 5 items, 6 pictures; left out: ")
        assert "left out: 4, questions whose answer is not yes or no" in told
        assert "left out: 2, questions that do not rest on one picture alone" in told
        assert "left out: 1, questions with fewer than 5 pictures to distract" in told
        assert command.endswith("--task position")
        hidden = files(tmp_path / "hidden", {"WebQA_test.json": {"g": {"Q": "Is it?", "Guid": "g", "img_Facts": []}}})
        with pytest.raises(ImageSetError, match="does not say which sources are the right ones"):
            imported("webqa-position", hidden, split="test")

    @pytest.fixture
    def demon(self, tmp_path: Path) -> Path:
        def about(dataset: str, kind: str) -> dict[str, Any]:
            return {"dataset": dataset, "question_type": kind, "task_instruction": ["Look. ", "See. "], "split": "core"}

        def sample(context: str, response: str, paths: list[str], **more: Any) -> dict[str, Any]:
            instance = {"context": context, "images_path": paths, **more}
            return {"sample_id": 0, "task_instruction_id": 1, "task_instance": instance, "response": response}

        two = {"choice_list": ["The <b> cat.", "a dog"]}
        content = {
            "AESOP/core/core.json": {
                "metadata": about("AESOP", "open-ended"),
                "data": [sample("{image#1} then {table#2}. {image#1}?", "It went.", ["0.jpg", "1.jpg"])],
            },
            "WebQA/core/core.json": {
                "metadata": about("WebQA", "multi-choice"),
                "data": [
                    sample("Which is it?", "The b cat", ["0.jpg"], **two),
                    {**sample("Which?", "Image C.", ["0.jpg"]), "sample_id": 1},
                    {**sample("Who? Choice List:['I', \"it's\"] Your answer is:", "I", ["0.jpg"]), "sample_id": 2},
                ],
            },
        }
        names = ["AESOP/core/images/0.jpg", "AESOP/core/images/1.jpg", "WebQA/core/images/0.jpg"]
        return files(tmp_path / "demon", {**content, **dict.fromkeys(names)})

    def test_demon_open(self, demon: Path) -> None:
        (found,) = imported("demon", demon)
        assert (found.id, found.category, found.answers) == ("AESOP-0", "AESOP", ("It went.",))
        assert found.question == "See. <image> then <image>. image 1?"
        assert found.pictures == tuple(demon / "AESOP" / "core" / "images" / name for name in ("0.jpg", "1.jpg"))

    def test_demon_choice(self, demon: Path) -> None:
        first, second, third = imported("demon-choice", demon / "WebQA")
        assert (first.options, first.answer, first.nearest) == (("The <b> cat.", "a dog"), 0, True)
        assert first.question == "<image>\nSee. Which is it?"
        assert (second.options[second.answer], len(second.options)) == ("Image C", 4)
        assert (third.question, third.options, third.answer) == ("<image>\nSee. Who?", ("I", "it's"), 0)
        made = import_benchmark("demon-choice", demon, demon.parent / "all.jsonl")
        assert made.left_out == {"open-ended questions": 1}


class TestMistakes:
    def test_every_fault_is_listed_or_left_out(self, tmp_path: Path) -> None:
        good = {"imageId": "1", "question": "Who?", "answer": "girl"}
        content = {
            "testdev_balanced_questions.json": {
                "a": good, "b": {**good, "imageId": "2"}, "c": {"imageId": "1"}, "d": {**good, "answer": " "}, "e": 3,
                "f": {**good, "imageId": "3"},
            },
            "1.jpg": None, "images/1.jpg": None, "x/3.jpg": None, "y/3.jpg": None,
        }  # fmt: skip
        source, out = files(tmp_path / "gqa", content), tmp_path / "out.jsonl"
        with pytest.raises(ImageSetError) as caught:
            import_benchmark("gqa", source, out)
        told = str(caught.value).splitlines()
        assert told[:5] == [
            "5 of 6 samples cannot be used:",
            f"  b: there is no picture 2.jpg in {source}",
            "  c: it has no 'question'",
            "  d: a text is missing; got ' '",
            "  e: it is not as it should be ('int' object is not subscriptable)",
        ]
        assert told[5:] == [
            "  f: 2 pictures are called 3.jpg: x/3.jpg, y/3.jpg",
            'Mend them, or leave them out: on_fault="skip" (--on-fault skip).',
        ]
        assert not out.exists()
        made = import_benchmark("gqa", source, out, on_fault="skip")
        assert made.left_out == {"cannot be read": 4, "pictures are missing": 1}
        # Of two pictures that are called so, the one at that very place.
        assert [(one.id, one.picture) for one in read_questions(out)] == [("a", source / "1.jpg")]

    @pytest.mark.parametrize(
        ("benchmark", "content", "said"),
        [
            ("vqa", {}, "there is no benchmark 'vqa'; there are: vqav2, gqa"),
            ("coco", {}, "coco: its captions become an image set: gen2real import coco"),
            ("vist", {}, "gen2real evaluate MODEL stories.jsonl --task story-retrieval"),
            (
                "gqa",
                {},
                "holds no file testdev_balanced_questions.json. It is to hold testdev_balanced_questions.json and",
            ),
            (
                "gqa",
                {"a/testdev_balanced_questions.json": {}, "b/testdev_balanced_questions.json": {}},
                "holds 2 files",
            ),
            ("gqa", {"testdev_balanced_questions.json": "{"}, "is not JSON"),
            ("gqa", {"testdev_balanced_questions.json": []}, "holds no object"),
            ("gqa", {"testdev_balanced_questions.json": {}}, "there is no sample to write"),
            ("vizwiz", {"val.json": {}}, "holds no list"),
            ("textvqa", {"TextVQA_0.5.1_val.json": {"dat": []}}, 'holds no list "data"'),
            ("vqav2", {"v2_OpenEnded_mscoco_val2014_questions.json": {}}, "lack 'questions'"),
            ("winoground", {"examples.jsonl": "{}\n[]\n"}, "line 2: not an object"),
            ("pope", {"coco_pope_random.json": "{\n"}, "line 1: not JSON"),
            ("mme", {"notes/readme.txt": "x"}, "holds no folder of MME's tasks"),
            ("seed", {"SEED-Bench.json": {}}, 'holds no list "questions"'),
            ("webqa", {"WebQA_train_val.json": {"g": {"split": "train"}}}, "no question of the split 'val'"),
            ("demon", {"x/core/core.json": {"data": []}}, "has no 'metadata'"),
        ],
    )
    def test_of_whole_files(self, tmp_path: Path, benchmark: str, content: Mapping[str, Any], said: str) -> None:
        source = files(tmp_path / "source", content)
        source.mkdir(exist_ok=True)
        with pytest.raises(ImageSetError) as caught:
            import_benchmark(benchmark, source, tmp_path / "out.jsonl")
        assert said in str(caught.value)

    def test_of_folders(self, tmp_path: Path) -> None:
        with pytest.raises(ImageSetError, match=r"nowhere is not a folder\. Give the one that holds examples.jsonl"):
            import_benchmark("winoground", tmp_path / "nowhere", tmp_path / "out.jsonl")
        with pytest.raises(ImageSetError, match=r"name it .*out\.jsonl"):
            import_benchmark("winoground", tmp_path, tmp_path / "out.json")


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    asked = {"question_id": 3, "image": "1.jpg", "text": "x?", "category": "conv"}
    source = files(tmp_path / "wild", {"questions.jsonl": lines(asked)})
    files(tmp_path / "elsewhere", {"1.jpg": None})
    (source / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(source)
    (found,) = imported("llava-wild", source)
    assert found.asked.pictures[0] == source / "images" / "1.jpg"


def test_the_command(tmp_path: Path) -> None:
    hidden = {"image": "VizWiz_val_0.jpg", "question": "what?"}
    source = files(tmp_path / "v", {"val.json": [{**hidden, "answers": [{"answer": "keys"}]}], "test.json": [hidden]})
    photos = files(tmp_path / "photos", {"VizWiz_val_0.jpg": None})
    out = tmp_path / "v.jsonl"
    done = gen2real_("import", "benchmark", "vizwiz", source, "--out", out)
    assert (done.code, done.out) == (2, "")
    assert "there is no picture VizWiz_val_0.jpg" in done.err
    done = gen2real_("import", "benchmark", "vizwiz", source, photos, "--out", out)
    assert done.out.splitlines() == [
        f"{out}: 1 items, 1 pictures", f"gen2real evaluate MODEL {out} --task questions",
    ]  # fmt: skip
    assert json.loads(out.read_text())["image"] == "photos/VizWiz_val_0.jpg"
    words = ("import", "benchmark", "vizwiz", source, photos, "--split", "test", "--out", tmp_path / "t.jsonl")
    assert gen2real_(*words, "--json").value == {
        "file": str(tmp_path / "t.jsonl"), "benchmark": "vizwiz", "task": "questions", "items": 1, "pictures": 1,
        "unanswered": 1, "left_out": {},
    }  # fmt: skip
    (tmp_path / "t.jsonl").unlink()
    assert gen2real_(*words).out.splitlines()[1].startswith("1 without a right answer, for others to judge: gen2real")
