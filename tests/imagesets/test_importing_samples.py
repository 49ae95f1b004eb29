"""Importers of interleaved samples, each on a small copy of the layout it reads."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pictures import save

from commands import gen2real_
from gen2real.errors import ImageSetError
from gen2real.imagesets import (
    ClassName,
    ImageSet,
    Interleaved,
    Turn,
    import_llava,
    import_mmc4,
    import_pairs,
    import_questions,
    import_vist,
    read_interleaved,
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.jpg", "coco/b.jpg", "c.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"")
    return tmp_path / "photos"


def as_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def talk(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": who, "value": text} for who, text in said]


class TestLlava:
    def test_conversations_of_one_and_several_turns_with_and_without_pictures(self, photos: Path) -> None:
        a, b = photos / "a.jpg", photos / "coco" / "b.jpg"
        source = as_json(
            photos.parent / "mix.json",
            [
                {"id": "7", "image": "coco/b.jpg", "model": "x", "conversations": talk(
                    ("human", "<image>\nWhat is it?"), ("gpt", "A bus."), ("human", "Red?"), ("gpt", "Yes."))},
                {"id": "7", "conversations": talk(("human", "Hi"), ("gpt", "Hello."), ("human", "Bye"))},
                {"id": "8", "image": ["a.jpg", "coco/b.jpg"], "conversations": talk(
                    ("human", "Is <image> like <image>?"), ("gpt", "No."))},
                {"id": 9, "image": "a.jpg", "conversations": talk(
                    ("system", "Be kind."), ("gpt", "Well?"), ("human", "What is it?"), ("gpt", "A cat."))},
                {"id": "7", "conversations": talk(("user", "1 + 1?"), ("assistant", "2"))},
            ],
        )  # fmt: skip
        made = import_llava(source, photos, photos.parent / "out.jsonl")
        assert (made.samples, made.pictures, made.left_out) == (5, 2, {})
        assert read_interleaved(made.path) == [
            Interleaved("7", (Turn((b, "\nWhat is it?"), "A bus."), Turn(("Red?",), "Yes."))),
            Interleaved("7-2", (Turn(("Hi",), "Hello."),)),
            Interleaved("8", (Turn(("Is ", a, " like ", b, "?"), "No."),)),
            Interleaved("9", (Turn((a, "\nWhat is it?"), "A cat."),)),
            Interleaved("7-3", (Turn(("1 + 1?",), "2"),)),
        ]

    def test_what_cannot_be_used_is_listed_or_left_out(self, photos: Path) -> None:
        good = talk(("human", "<image> what?"), ("gpt", "x"))
        source = as_json(
            photos.parent / "mix.json",
            [
                {"id": "good", "image": "a.jpg", "conversations": good},
                {"id": "gone", "image": "nowhere.jpg", "conversations": good},
                {"id": "marks", "image": ["a.jpg", "c.png"], "conversations": good},
                {"id": "said", "image": "a.jpg", "conversations": talk(("human", "<image> what?"), ("gpt", "<image>"))},
                {"id": "twice", "conversations": talk(("human", "a"), ("human", "b"))},
                {"id": "empty", "conversations": talk(("human", "a"), ("gpt", " "))},
                {"id": "alone", "conversations": talk(("human", "a"))},
                {"id": "none"},
                {"id": "number", "image": 3, "conversations": good},
            ],
        )
        out = photos.parent / "out.jsonl"
        with pytest.raises(ImageSetError) as caught:
            import_llava(source, photos, out)
        assert str(caught.value).splitlines() == [
            "8 of 9 samples cannot be used:",
            f"  gone: there is no picture {photos / 'nowhere.jpg'}",
            "  marks: there are 1 marks <image> and 2 images",
            "  said: an answer holds the mark <image>",
            "  twice: message 2 is from 'human', not from 'gpt'",
            "  empty: message 2 is empty",
            "  alone: nobody answers",
            "  none: it has no list 'conversations'",
            "  number: 'image' must be a path or a list of paths; got 3",
            'Mend them, or leave them out: on_fault="skip" (--on-fault skip).',
        ]
        assert not out.exists()
        made = import_llava(source, photos, out, on_fault="skip")
        assert [one.id for one in read_interleaved(out)] == ["good"]
        assert made.left_out == {
            "conversations are torn": 5, "marks do not fit the pictures": 2, "pictures are missing": 1,
        }  # fmt: skip
        with pytest.raises(ImageSetError, match=r"out\.jsonl exists already"):
            import_llava(source, photos, out, on_fault="skip")

    def test_mistakes_of_the_whole_file(self, photos: Path) -> None:
        out = photos.parent / "out.jsonl"
        bad = as_json(photos.parent / "bad.json", {"a": 1})
        with pytest.raises(ImageSetError, match=r"holds no list of objects\. Give LLaVA's JSON"):
            import_llava(bad, photos, out)
        with pytest.raises(ImageSetError, match="is not a folder"):
            import_llava(as_json(bad, []), photos / "no", out)
        with pytest.raises(ImageSetError, match="there is no sample to write"):
            import_llava(bad, photos, out)
        with pytest.raises(ImageSetError, match=r"name it .*samples\.jsonl"):
            import_llava(bad, photos, photos.parent / "samples.json")
        with pytest.raises(ImageSetError, match=r"none\.json does not exist\. Give LLaVA's JSON"):
            import_llava(photos / "none.json", photos, out)


def page(*texts: str, **places: int) -> str:
    """A page whose pictures (by stem, jpg) are matched to these sentences."""
    infos = [
        {"image_name": f"{name}.jpg", "matched_text_index": place, "matched_sim": 0.2 + 0.05 * place}
        for name, place in places.items()
    ]
    return json.dumps({"url": "x", "text_list": list(texts), "image_info": infos}) + "\n"


class TestMmc4:
    @pytest.fixture
    def shards(self, photos: Path) -> Path:
        folder = photos.parent / "shards"
        folder.mkdir()
        (photos / "b.jpg").write_bytes(b"")
        (folder / "docs_1.jsonl").write_text(
            page("One.", "Two\n two.", "Three.", b=2, gone=1, a=0) + page("No picture.", gone=0)
        )
        with zipfile.ZipFile(folder / "docs_0.jsonl.zip", "w") as archive:
            archive.writestr("docs_0.jsonl", page("é one.", "Two.", a=1) + "{\n" + page("<image>") + page("x", a=4))
        return folder

    def test_pictures_stand_beside_their_sentences(self, photos: Path, shards: Path) -> None:
        a, b = photos / "a.jpg", photos / "b.jpg"
        made = import_mmc4(shards, photos, photos.parent / "out.jsonl")
        assert read_interleaved(made.path) == [
            Interleaved("docs_0-1", (Turn(("é one. ", a, " Two.")),)),
            Interleaved("docs_1-1", (Turn((a, " One. Two two. ", b, " Three.")),)),
        ]
        assert made.left_out == {"broken lines": 3, "without a picture": 1}
        made = import_mmc4(shards / "docs_1.jsonl", photos, photos.parent / "after.jsonl", place="after")
        assert read_interleaved(made.path) == [Interleaved("docs_1-1", (Turn(("One. ", a, " Two two. Three. ", b)),))]

    def test_pictures_that_fit_little_stay_away(self, photos: Path, shards: Path) -> None:
        made = import_mmc4(shards, photos, photos.parent / "out.jsonl", min_similarity=0.22)
        assert [one.turns[0].text for one in read_interleaved(made.path)] == [
            "é one. <image> Two.", "One. Two two. <image> Three.",
        ]  # fmt: skip

    def test_faults_can_be_listed(self, photos: Path, shards: Path) -> None:
        with pytest.raises(ImageSetError) as caught:
            import_mmc4(shards, photos, photos.parent / "out.jsonl", on_fault="error")
        told = str(caught.value).splitlines()
        assert told[0] == "4 of 6 samples cannot be used:"
        assert [line.split(":")[0] for line in told[1:5]] == [
            "  docs_0-2", "  docs_0-3", "  docs_0-4", "  docs_1-2",
        ]  # fmt: skip
        assert "a picture is matched to sentence 4 of 1" in told[3]
        with pytest.raises(ImageSetError, match="is not a shard of MMC4"):
            import_mmc4(photos, photos, photos.parent / "out.jsonl")


def storylet(story: int, photo: str, place: int, text: str) -> list[dict[str, Any]]:
    return [
        {"story_id": str(story), "photo_flickr_id": photo, "worker_arranged_photo_order": place, "original_text": text}
    ]


class TestVist:
    @pytest.fixture
    def stories(self, photos: Path) -> Path:
        told = [
            storylet(5, "c", 1, "Then  it ended."),
            storylet(5, "a", 0, "It began."),
            storylet(6, "a", 0, "Hello."),
            storylet(6, "gone", 1, "Where?"),
            storylet(7, "a", 0, "<image>"),
        ]
        return as_json(photos.parent / "val.story-in-sequence.json", {"images": [], "annotations": told})

    def test_pictures_and_sentences_as_the_storyteller_put_them(self, photos: Path, stories: Path) -> None:
        a, c = photos / "a.jpg", photos / "c.png"
        made = import_vist(stories, photos, photos.parent / "out.jsonl")
        assert made.left_out == {"pictures are missing": 1, "sentences are missing": 1}
        assert read_interleaved(made.path) == [Interleaved("5", (Turn((a, " It began. ", c, " Then it ended.")),))]
        made = import_vist(stories, photos, photos.parent / "text.jsonl", order="text-first")
        assert read_interleaved(made.path) == [Interleaved("5", (Turn(("It began. ", a, " Then it ended. ", c)),))]

    def test_faults_can_be_listed(self, photos: Path, stories: Path) -> None:
        with pytest.raises(ImageSetError, match=r"(?s)2 of 3 samples.*6: there is no picture .*gone with any of \.jpg"):
            import_vist(stories, photos, photos.parent / "out.jsonl", on_fault="error")
        isolated = as_json(photos.parent / "dii.json", {"annotations": [[{"photo_flickr_id": "a"}]]})
        with pytest.raises(ImageSetError, match="lacks 'story_id'; descriptions in isolation are no stories"):
            import_vist(isolated, photos, photos.parent / "out.jsonl")
        with pytest.raises(ImageSetError, match='has no list "annotations"'):
            import_vist(as_json(isolated, []), photos, photos.parent / "out.jsonl")


class TestPairs:
    @pytest.fixture
    def captioned(self, tmp_path: Path) -> ImageSet:
        rows = [
            {
                "id": f"p{number}", "path": save(tmp_path / "set" / f"{number}.png", number).name, "origin": "real",
                "captions": [f"picture  {number}", f"number {number}"], "sha256": "", "kept": number != 3,
            }
            for number in range(12)
        ]  # fmt: skip
        return ImageSet.write(tmp_path / "set", rows, [ClassName("x", "x")])

    def test_both_orders(self, captioned: ImageSet, tmp_path: Path) -> None:
        made = import_pairs(captioned, tmp_path / "out.jsonl", order="both")
        found = read_interleaved(made.path)
        first = captioned.paths[0]
        assert found[:2] == [
            Interleaved("p0-0-image-first", (Turn((first, " picture 0")),)),
            Interleaved("p0-0-text-first", (Turn(("picture 0 ", first)),)),
        ]
        assert (made.samples, made.pictures) == (44, 11)
        assert not any(one.id.startswith("p3-") for one in found)

    def test_orders_are_drawn_pair_by_pair(self, captioned: ImageSet, tmp_path: Path) -> None:
        def texts(name: str, image_set: ImageSet, **options: Any) -> dict[str, str]:
            made = import_pairs(image_set, tmp_path / name, **options)
            return {one.id: one.turns[0].text for one in read_interleaved(made.path)}

        drawn = texts("0.jsonl", captioned)
        firsts = [text.startswith("<image>") for text in drawn.values()]
        assert 0 < sum(firsts) < len(firsts) == 22
        assert texts("1.jsonl", captioned, seed=1) != drawn
        # A smaller set's are among the larger one's.
        few = texts("few.jsonl", captioned.select([5, 7]))
        assert few == {id: drawn[id] for id in few}
        for order, expected in (("image-first", "<image> number 0"), ("text-first", "number 0 <image>")):
            assert texts(f"{order}.jsonl", captioned, order=order)["p0-1"] == expected

    def test_texts_lie_in_other_columns_too(self, captioned: ImageSet, tmp_path: Path) -> None:
        rows = [
            {**row, "long": f"{row['id']} here. It is big.", "alt": [row["id"]] if place else [], "size": place}
            for place, row in enumerate(captioned.rows())
        ]
        more = ImageSet.write(captioned.root, rows, captioned.classes, name="more.parquet")
        made = import_pairs(more, tmp_path / "long.jsonl", column="long", order="text-first")
        assert read_interleaved(made.path)[0].turns[0].text == "p0 here. It is big. <image>"
        assert import_pairs(more, tmp_path / "alt.jsonl", column="alt").samples == made.samples - 1 > 0
        for column, said in (("longer", r"no column 'longer'; it has: id, .*long, alt"), ("size", "must hold texts")):
            with pytest.raises(ImageSetError, match=said):
                import_pairs(more, tmp_path / "none.jsonl", column=column)

    def test_captions_are_needed(self, captioned: ImageSet, tmp_path: Path) -> None:
        rows = [{**row, "captions": []} for row in captioned.rows()]
        silent = ImageSet.write(captioned.root, rows, captioned.classes, name="silent.parquet")
        with pytest.raises(ImageSetError, match=r"no picture of .* has a text in the column .captions."):
            import_pairs(silent, tmp_path / "out.jsonl")
        rows[0]["captions"] = ["an <image>"]
        marked = ImageSet.write(captioned.root, rows, captioned.classes, name="marked.parquet")
        with pytest.raises(ImageSetError, match=r"p0-0: a caption must be a text without marks; got 'an <image>'"):
            import_pairs(marked, tmp_path / "out.jsonl")


class TestQuestions:
    @pytest.fixture
    def asked(self, photos: Path) -> Path:
        lines: list[dict[str, Any]] = [
            {"image": "photos/a.jpg", "question": f"number {number}?", "answers": ["one", "two", "two"]}
            for number in range(5)
        ]
        lines.insert(2, {"image": "photos/c.png", "question": "what?", "answer": "a cup"})
        (photos.parent / "asked.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return photos.parent / "asked.jsonl"

    def test_a_picture_s_questions_are_turns_of_one_conversation(self, photos: Path, asked: Path) -> None:
        made = import_questions(asked, photos.parent / "out.jsonl")
        assert (made.samples, made.pictures) == (2, 2)
        first, second = read_interleaved(made.path)
        before = Turn((photos / "a.jpg", "\nnumber 0?"), "two")
        assert first == Interleaved("1", (before, *(Turn((f"number {n}?",), "two") for n in range(1, 5))))
        assert second == Interleaved("3", (Turn((photos / "c.png", "\nwhat?"), "a cup"),))

    def test_fewer_are_drawn_by_seed(self, photos: Path, asked: Path) -> None:
        def turns(seed: int) -> list[str]:
            made = import_questions(asked, photos.parent / f"{seed}.jsonl", turns=2, seed=seed)
            return [turn.text for turn in read_interleaved(made.path)[0].turns]

        drawn = {seed: turns(seed) for seed in range(4)}
        assert all(len(own) == 2 and own[0].startswith("<image>\nnumber") for own in drawn.values())
        assert len({tuple(own) for own in drawn.values()}) > 1

    def test_mistakes(self, photos: Path, asked: Path) -> None:
        with pytest.raises(ImageSetError, match="turns must be at least 1; got 0"):
            import_questions(asked, photos.parent / "out.jsonl", turns=0)
        asked.write_text(json.dumps({"image": "photos/a.jpg", "question": "is <image> red?", "answer": "no"}))
        with pytest.raises(ImageSetError, match=r"1: questions and answers must be texts without the mark <image>"):
            import_questions(asked, photos.parent / "out.jsonl")


def test_the_commands(photos: Path) -> None:
    root = photos.parent
    said = talk(("human", "<image> what?"), ("gpt", "x"))
    entries = [{"image": name, "conversations": said} for name in ("a.jpg", "nowhere.jpg")]
    source, out = as_json(root / "mix.json", entries), root / "out.jsonl"
    done = gen2real_("import", "llava", source, photos, "--out", out)
    assert (done.code, done.out) == (2, "")
    assert "1 of 2 samples cannot be used" in done.err
    done = gen2real_("import", "llava", source, photos, "--out", out, "--on-fault", "skip")
    assert done.out == f"{out}: 1 samples of 1 pictures; left out: 1, pictures are missing\n"
    assert read_interleaved(out)[0].turns[0].answer == "x"

    (root / "docs.jsonl").write_text(page("One.", a=0))
    words = ("import", "mmc4", root / "docs.jsonl", photos, "--out", root / "web.jsonl", "--place", "after", "--json")
    assert json.loads(gen2real_(*words).out) == {
        "file": str(root / "web.jsonl"), "samples": 1, "pictures": 1, "left_out": {},
    }  # fmt: skip
    assert read_interleaved(root / "web.jsonl")[0].turns[0].text == "One. <image>"

    told = as_json(root / "sis.json", {"annotations": [storylet(1, "a", 0, "It was.")]})
    done = gen2real_("import", "vist", told, photos, "--out", root / "vist.jsonl", "--order", "text-first")
    assert done.out == f"{root / 'vist.jsonl'}: 1 samples of 1 pictures\n"
    assert read_interleaved(root / "vist.jsonl")[0].turns[0].text == "It was. <image>"

    row = {"id": "p", "path": save(root / "set" / "p.png").name, "origin": "real", "captions": ["a toy"], "sha256": ""}
    ImageSet.write(root / "set", [row], [])
    done = gen2real_("import", "pairs", root / "set", "--out", root / "pairs.jsonl", "--order", "both")
    assert done.out == f"{root / 'pairs.jsonl'}: 2 samples of 1 pictures\n"

    (root / "asked.jsonl").write_text('{"image": "p", "question": "what?", "answer": "a toy"}')
    done = gen2real_("import", "questions", root / "asked.jsonl", "--set", root / "set", "--out", root / "talk.jsonl")
    assert done.out == f"{root / 'talk.jsonl'}: 1 samples of 1 pictures\n"
