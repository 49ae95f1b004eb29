"""Prompts from names, templates and files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from gen2real.errors import ImageSetError, RecipeError
from gen2real.prompts import GENERATION_TEMPLATES, TEMPLATES, prompts_for, read_class_names

ELEVEN = {
    "caltech-101", "dtd", "eurosat", "fgvc_aircraft", "food-101", "imagenet",
    "oxford_flowers", "oxford_pets", "stanford_cars", "sun397", "ucf101",
}  # fmt: skip


class TestTemplates:
    def test_the_eighty(self) -> None:
        eighty = TEMPLATES["imagenet-80"]
        assert len(eighty) == len(set(eighty)) == 80
        assert (eighty[0], eighty[39], eighty[79]) == (
            "a bad photo of a {}.",
            "a photo of a {}.",
            "a tattoo of the {}.",
        )
        # Of the list in wise-ft's openai_imagenet_template.py, in its order.
        assert hashlib.sha256("\n".join(eighty).encode()).hexdigest() == EIGHTY

    def test_names(self) -> None:
        assert set(TEMPLATES) == ELEVEN | {"simple", "imagenet-80"}
        assert set(GENERATION_TEMPLATES) == ELEVEN
        assert all(template.count("{}") == 1 for templates in TEMPLATES.values() for template in templates)

    def test_where_generation_differs(self) -> None:
        differing = {name for name in ELEVEN if TEMPLATES[name] != (GENERATION_TEMPLATES[name],)}
        assert differing == {"dtd", "stanford_cars"}
        assert GENERATION_TEMPLATES["dtd"] == "a photo of a {} texture."
        assert GENERATION_TEMPLATES["stanford_cars"] == "a photo of a {}, a type of car."

    def test_cannot_be_changed_by_accident(self) -> None:
        with pytest.raises(TypeError):
            TEMPLATES["simple"] = ()  # type: ignore[index]


class TestPromptsFor:
    def test_awkward_names(self) -> None:
        names = ["F-16A/B", "<script>", "{0}", "{}", "a {name}", 'say "hi"', "海豚", "golden_retriever"]
        assert [prompts for (prompts,) in prompts_for(names)] == [
            "a photo of a F-16A/B.", "a photo of a <script>.", "a photo of a {0}.", "a photo of a {}.",
            "a photo of a a {name}.", 'a photo of a say "hi".', "a photo of a 海豚.", "a photo of a golden retriever.",
        ]  # fmt: skip

    def test_own_templates(self) -> None:
        assert prompts_for(["cat"], templates=["{}, drawn", "a {}"]) == [["cat, drawn", "a cat"]]
        assert prompts_for(["cat"], templates="one {} only") == [["one cat only"]]

    def test_unknown_name(self) -> None:
        with pytest.raises(RecipeError, match='Did you mean "oxford_pets"'):
            prompts_for(["cat"], templates="oxford-pets")

    def test_template_without_a_place(self) -> None:
        with pytest.raises(RecipeError, match=r"the template 'a photo of a cat\.' has no \{\}"):
            prompts_for(["cat"], templates=["a {}", "a photo of a cat."])

    def test_no_template(self) -> None:
        with pytest.raises(RecipeError, match="templates is empty"):
            prompts_for(["cat"], templates=[])

    def test_a_bare_name(self) -> None:
        with pytest.raises(RecipeError, match="list of names"):
            prompts_for("cat")


class TestPromptFiles:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "cupl.json"
        path.write_text(
            json.dumps({"Maine Coon": ["A big cat."], "missile": ["It flies.", "It is fast."], "missile ": ["No."]}),
            encoding="utf-8",
        )
        return path

    def test_case_and_underscores(self, file: Path) -> None:
        assert prompts_for(["maine_coon", "Maine  Coon"], file=file) == [["A big cat."], ["A big cat."]]

    def test_duplicates_share(self, file: Path) -> None:
        first, second = prompts_for(["missile", "missile"], file=file)
        assert first == second == ["It flies.", "It is fast."]
        assert first is not second

    def test_missing_classes_with_their_nearest(self, file: Path) -> None:
        with pytest.raises(
            RecipeError, match=r"2 of 3 classes:\n  'Maine Coo'; nearest: 'Maine Coon'\n  'x'; nearest: none"
        ):
            prompts_for(["Maine Coo", "missile", "x"], file=file)

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("[", "cannot be read"),
            ("[]", "one JSON object"),
            ('{"cat": "a cat"}', "'cat' needs a list"),
            ('{"cat": []}', "'cat' needs a list"),
            ('{"cat": [" "]}', "'cat' needs a list"),
        ],
    )
    def test_other_forms(self, tmp_path: Path, text: str, complaint: str) -> None:
        (tmp_path / "prompts.json").write_text(text)
        with pytest.raises(RecipeError, match=complaint):
            prompts_for(["cat"], file=tmp_path / "prompts.json")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="cannot be read"):
            prompts_for(["cat"], file=tmp_path / "none.json")


class TestReadClassNames:
    def test_what_is_skipped(self, tmp_path: Path) -> None:
        path = tmp_path / "names.txt"
        path.write_bytes("\ufeff# my pets\r\n\r\n  Maine Coon \r\n海豚\r\nC# book\r\nmissile\r\nmissile".encode())
        assert read_class_names(path) == ["Maine Coon", "海豚", "C# book", "missile", "missile"]

    @pytest.mark.parametrize("content", [b"", b"\n\n", b"# only\n", b"\xef\xbb\xbf"])
    def test_empty(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "names.txt").write_bytes(content)
        with pytest.raises(ImageSetError, match="names no class"):
            read_class_names(tmp_path / "names.txt")

    def test_unreadable(self, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_bytes(b"caf\xe9")
        with pytest.raises(ImageSetError, match="UTF-8"):
            read_class_names(tmp_path / "names.txt")
        with pytest.raises(ImageSetError, match="cannot be read"):
            read_class_names(tmp_path / "none.txt")


EIGHTY = "4f976686fb651bb5803d4689dcd849f75efe0ef19a3c801355bc9a6f03c8a5af"
