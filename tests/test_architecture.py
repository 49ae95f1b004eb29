"""docs/architecture.md, kept: which room imports which, what is light to import, what stays out."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gen2real

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "gen2real"
FILES = sorted(SOURCE.rglob("*.py"))

ALL_ABOVE_LOSSES = {"errors", "files", "config", "prompts", "imagesets", "models"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "late": set(),
    "files": {"errors"},
    "config": {"errors", "files"},
    "prompts": {"errors", "files"},
    "pipelines": {"errors"},
    "progress": set(),
    "losses": set(),
    "imagesets": {"errors", "late", "files"},
    "generation": {"errors", "late", "files", "config", "prompts", "progress", "imagesets", "training", "pipelines"},
    "models": {"errors", "files", "prompts", "imagesets", "pipelines"},
    "evaluation": ALL_ABOVE_LOSSES | {"losses"},
    "curation": ALL_ABOVE_LOSSES | {"late", "evaluation"},
    "training": {"errors", "files", "config", "progress"},
    "methods": ALL_ABOVE_LOSSES | {"losses", "generation", "evaluation", "training", "progress"},
    "comparison": ALL_ABOVE_LOSSES | {"losses", "generation", "evaluation", "training", "methods"},
    "report": ALL_ABOVE_LOSSES | {"late", "losses", "evaluation", "curation", "training", "methods", "comparison"},
    "doctor": {"errors"},
    "kit": ALL_ABOVE_LOSSES
    | {"losses", "evaluation", "curation", "training", "methods", "comparison", "generation", "report"},
    "cli": ALL_ABOVE_LOSSES
    | {"losses", "evaluation", "curation", "training", "methods", "comparison", "doctor", "generation", "kit"}
    | {"progress", "report"},
}

# Files that are part of the room of another.
PART_OF = {
    "recipe": "config",
    "cli_answer": "cli",
    "cli_import": "cli",
    "cli_curate": "cli",
    "cli_evaluate": "cli",
    "cli_generate": "cli",
    "cli_kit": "cli",
    "cli_options": "cli",
    "cli_report": "cli",
    "cli_tables": "cli",
    "__main__": "cli",
}

LOCKED = [
    "CaptioningConfig",
    "CompareConfig",
    "Config",
    "CurateConfig",
    "FLYPConfig",
    "GMAILConfig",
    "Gen2RealError",
    "GenerateConfig",
    "ImageSet",
    "MultimodalConfig",
    "RegFTConfig",
    "SoupConfig",
    "SugarConfig",
    "UniDiffConfig",
    "__version__",
    "answer_questions",
    "blend_models",
    "compare",
    "curate",
    "evaluate_captioning",
    "evaluate_diffusion_classification",
    "evaluate_model",
    "evaluate_questions",
    "evaluate_reranking",
    "evaluate_retrieval",
    "evaluate_synthesis",
    "evaluate_task",
    "gap_between",
    "generate",
    "load_aligned",
    "load_captioner",
    "load_classifier",
    "load_dual_encoder",
    "load_multimodal",
    "load_recipe",
    "redraw",
    "run",
    "write_gallery",
    "write_report",
]

HEAVY = {"torch", "transformers", "diffusers", "peft", "accelerate", "datasets", "torchmetrics", "pyarrow", "numpy"}
BANNED = {
    "torchvision": "it has no build for every torch that gen2real runs on",
    "timm": "it imports torchvision",
    "open_clip": "it imports torchvision",
    "pickle": "opening one runs whatever its maker put in it",
    "dill": "opening a pickle runs whatever its maker put in it",
    "joblib": "it reads and writes pickles",
    "shelve": "it reads and writes pickles",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    name = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return PART_OF.get(name, name)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import of a file, those inside functions and under TYPE_CHECKING as well."""
    package = ("gen2real", *path.relative_to(SOURCE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            yield from ((node.lineno, f"{base}.{name.name}") for name in node.names)


def test_a_room_imports_only_from_rooms_above_it() -> None:
    wrong = []
    for path in FILES:
        room = room_of(path)
        if path == SOURCE / "__init__.py":
            continue
        for line, name in imports_of(path):
            package, _, rest = name.partition(".")
            if package != "gen2real" or rest == "__version__":
                continue
            other = PART_OF.get(rest.partition(".")[0], rest.partition(".")[0])
            if other != room and other not in ROOMS.get(room, set()):
                wrong.append(f"{name_of(path)}:{line}: {room} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_every_file_is_in_a_room_that_the_architecture_names() -> None:
    written = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([a-z_]+)(?:\.py|/)` \|", written, re.MULTILINE))
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    assert rooms <= named, f"rooms without a line in the table of docs/architecture.md: {sorted(rooms - named)}"
    assert named == set(ROOMS), f"the table and this test differ in {sorted(named ^ set(ROOMS))}"


def test_nothing_banned_is_imported() -> None:
    wrong = [
        f"{name_of(path)}:{line}: {name}: {BANNED[name.partition('.')[0]]}"
        for path in FILES
        for line, name in imports_of(path)
        if name.partition(".")[0] in BANNED
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_opens_a_pickle() -> None:
    wrong = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                allows = any(keyword.arg in ("allow_pickle", "trust_remote_code") for keyword in node.keywords)
                if called in ("torch.load", "torch.save", "eval", "exec") or (allows and "=True" in ast.unparse(node)):
                    wrong.append(f"{name_of(path)}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert not wrong, "\n".join(wrong)


def public(path: Path) -> Iterator[tuple[int, str, ast.AST]]:
    """Line, name and node of what a file offers: the file itself, its public functions and classes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if tree.body:
        yield 1, "the file", tree
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.lineno, node.name, node


def test_what_is_public_says_what_it_does() -> None:
    wrong = [
        f"{name_of(path)}:{line}: {name} has no docstring"
        for path in FILES
        for line, name, node in public(path)
        if not ast.get_docstring(node)  # type: ignore[arg-type]
    ]
    assert not wrong, "\n".join(wrong)


def test_files_stay_short() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {name: length for name, length in lengths.items() if length > 500}


def test_functions_stay_short() -> None:
    wrong = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (length := (node.end_lineno or 0) - node.lineno + 1) > 100:
                wrong.append(f"{name_of(path)}:{node.lineno}: {node.name} has {length} lines")
    assert not wrong, "\n".join(wrong)


def test_no_file_names_a_place_on_someones_machine() -> None:
    places = re.compile(r"(?:^|[\s\"'=(])(?:\.\./shared|/(?:work|root|tmp|home/\w+|opt)/)")
    wrong = []
    for path in (*FILES, *ROOT.glob("recipes/*/*.yaml"), *ROOT.glob("benchmarks/*/*.py"), *ROOT.glob("*.md")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if places.search(line):
                wrong.append(f"{name_of(path)}:{number}: {line.strip()[:100]}")
    assert not wrong, "\n".join(wrong)


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["", ".errors", ".config", ".doctor", ".files", ".prompts", ".cli"])
def test_what_every_command_needs_is_light_to_import(module: str) -> None:
    heavy = modules_after(f"import gen2real{module}") & HEAVY
    assert not heavy, f"import gen2real{module} imports {', '.join(sorted(heavy))}"


def test_the_public_names_are_locked() -> None:
    assert sorted(gen2real.__all__) == LOCKED
    assert dir(gen2real) == LOCKED


def test_every_public_name_is_there() -> None:
    for name in gen2real.__all__:
        assert getattr(gen2real, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = gen2real.nothing


def test_type_checkers_see_what_is_imported_late() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        name.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if name.asname == name.name
    }
    assert seen == gen2real._EXPORTS


@pytest.mark.parametrize(
    "package",
    ["generation", "imagesets", "losses", "models", "evaluation", "curation", "training", "methods", "report"],
)
def test_every_name_a_room_offers_is_there(package: str) -> None:
    room = importlib.import_module(f"gen2real.{package}")
    for name in getattr(room, "__all__", ()):
        assert hasattr(room, name), f"gen2real.{package}.__all__ offers {name}, which is not there"


def test_shapes_are_checked_in_tests() -> None:
    import torch

    from gen2real.losses import image_text_contrastive

    with pytest.raises(Exception, match="Type-check error") as caught:
        image_text_contrastive(torch.ones(2, 3), torch.ones(2, 4), 1.0)
    assert "text" in str(caught.value)
