"""Every importer on a small copy of the layout it reads; awkward class names go through all that have classes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tarfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from pictures import AWKWARD, save, smooth
from PIL import Image

from gen2real.errors import ImageSetError, UnreadablePictures
from gen2real.files import sha256_of
from gen2real.imagesets import (
    ImageSet,
    decode,
    export_webdataset,
    import_coco,
    import_coop,
    import_huggingface,
    import_imagefolder,
    import_table,
    import_webdataset,
    perceptual_hash,
    unique_slugs,
)
from gen2real.imagesets.importers.coop import COOP_DATASETS


def shows(found: ImageSet, seeds: list[int]) -> None:
    """Each row's picture is the one drawn from that seed, and what the manifest says of it is true."""
    for path, stored, sha256, phash, seed in zip(
        found.paths, found.table["path"].to_pylist(), found.table["sha256"].to_pylist(),
        found.table["phash"].to_pylist(), seeds, strict=True,
    ):  # fmt: skip
        assert decode(path).tobytes() == smooth(24, 20, seed).tobytes(), stored
        assert sha256 == sha256_of(path)
        assert phash == perceptual_hash(decode(path))


def folders(root: Path, names: list[str], each: int = 2) -> list[int]:
    seeds = list(range(len(names) * each))
    for seed in seeds:
        save(root / names[seed // each] / f"{seed % each}.png", seed)
    return seeds


class TestImageFolder:
    def test_two_lines_take_in_a_folder(self, tmp_path: Path) -> None:
        seeds = folders(tmp_path / "mine", ["Cat", "dog", "été"])
        found = import_imagefolder(tmp_path / "mine", tmp_path / "out")
        assert found.class_names == ["Cat", "dog", "été"]
        assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert found.ids[:3] == ["cat/0", "cat/1", "dog/0"]
        assert found.table["path"].to_pylist()[-1] == "pictures/ete/1.png"
        assert found.root == tmp_path / "out"
        shows(found, seeds)

    def test_awkward_names_find_their_folders_by_slug(self, tmp_path: Path) -> None:
        names = list(dict.fromkeys(AWKWARD))
        seeds = folders(tmp_path / "mine", unique_slugs(names), each=1)
        lines = tmp_path / "names.txt"
        # Slugs that were numbered because another name came first are told apart by "folder<TAB>name".
        pairs = zip(unique_slugs(names), names, strict=True)
        lines.write_text("".join(f"{slug}\t{name}\n" for slug, name in pairs), encoding="utf-8")
        found = import_imagefolder(tmp_path / "mine", tmp_path / "out", names=lines)
        assert found.class_names == [name.strip() for name in names]
        assert sorted(found.labels.tolist()) == seeds
        shows(found, found.labels.tolist())

    def test_a_generators_slashes_made_nested_folders(self, tmp_path: Path) -> None:
        names = ["F/A-18", "F-16A/B", "tench"]
        seeds = folders(tmp_path / "mine", names, each=1)
        (tmp_path / "names.txt").write_text("\n".join(names))
        found = import_imagefolder(tmp_path / "mine", tmp_path / "out", names=tmp_path / "names.txt")
        assert {name: found.paths[found.labels.tolist().index(n)].parent.name for n, name in enumerate(names)} == {
            "F/A-18": "f-a-18",
            "F-16A/B": "f-16a-b",
            "tench": "tench",
        }
        shows(found, [seeds[label] for label in found.labels])

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("names.txt", "n02 tench, Tinca tinca\nn01 goldfish\n"),
            ("names.txt", "n02\ttench, Tinca tinca\nn01\tgoldfish\n"),
            ("names.json", '{"n02": "tench, Tinca tinca", "n01": "goldfish"}'),
        ],
    )
    def test_names_files(self, tmp_path: Path, file: str, content: str) -> None:
        folders(tmp_path / "mine", ["n01", "n02"], each=1)
        (tmp_path / file).write_text(content)
        found = import_imagefolder(tmp_path / "mine", tmp_path / "out", names=tmp_path / file)
        assert found.class_names == ["tench, Tinca tinca", "goldfish"]
        assert found.labels.tolist() == [1, 0]

    def test_names_without_a_folder_stay_and_folders_without_a_name_do_not_pass(self, tmp_path: Path) -> None:
        folders(tmp_path / "mine", ["cat", "dog"], each=1)
        with pytest.warns(UserWarning, match=r"1 of 3 classes have no picture: .'cow'"):
            found = import_imagefolder(tmp_path / "mine", tmp_path / "a", names={"dog": "d", "cow": "cow", "cat": "c"})
        assert found.labels.tolist() == [2, 0]
        with pytest.raises(ImageSetError, match=r"'dog'.*Add a line"):
            import_imagefolder(tmp_path / "mine", tmp_path / "b", names={"cat": "c"})
        with pytest.raises(ImageSetError, match="Did you mean 'cat'"):
            import_imagefolder(tmp_path / "mine", tmp_path / "b", names={"cats": "c"})

    def test_nested_folders_count_to_the_top_or_are_classes(self, tmp_path: Path) -> None:
        folders(tmp_path / "mine", ["animal/cat", "animal/dog", "car"], each=1)
        with pytest.warns(UserWarning, match=r"all become class 'animal'.*--nested leaf"):
            found = import_imagefolder(tmp_path / "mine", tmp_path / "top")
        assert found.class_names == ["animal", "car"]
        found = import_imagefolder(tmp_path / "mine", tmp_path / "leaf", nested="leaf")
        assert found.class_names == ["animal/cat", "animal/dog", "car"]

    def test_a_flat_folder_has_no_classes_and_may_have_captions(self, tmp_path: Path) -> None:
        save(tmp_path / "mine/b.png", 1)
        save(tmp_path / "mine/a.png", 0)
        (tmp_path / "mine/a.txt").write_text("one\n\n two \n")
        found = import_imagefolder(tmp_path / "mine", tmp_path / "out", origin="generated")
        assert found.labels.tolist() == [-1, -1]
        assert found.captions == [["one", "two"], []]
        assert found.table["origin"].to_pylist() == ["generated"] * 2
        shows(found, [0, 1])

    def test_splits_are_not_classes(self, tmp_path: Path) -> None:
        folders(tmp_path / "mine", ["train/cat", "val/cat"], each=1)
        with pytest.raises(ImageSetError, match=r"splits .train, val.*gen2real import imagefolder .*/val"):
            import_imagefolder(tmp_path / "mine", tmp_path / "out")

    def test_other_files_are_passed_over(self, tmp_path: Path) -> None:
        folders(tmp_path / "mine", ["cat", ".hidden", "__MACOSX"], each=1)
        for name in ("cat/.DS_Store", "cat/Thumbs.db", "cat/readme.md", "labels.csv"):
            (tmp_path / "mine" / name).write_text("x")
        save(tmp_path / "mine/cat/z.png", 7).rename(tmp_path / "mine/cat/no-extension")
        with pytest.warns(
            UserWarning, match=r"2 file\(s\) that are no pictures passed over: cat/readme.md, labels.csv"
        ):
            found = import_imagefolder(tmp_path / "mine", tmp_path / "out")
        assert found.class_names == ["cat"]
        shows(found, [0, 7])

    def test_pictures_beside_class_folders_are_left_out_with_a_warning(self, tmp_path: Path) -> None:
        folders(tmp_path / "mine", ["cat"], each=1)
        save(tmp_path / "mine/loose.png")
        with pytest.warns(UserWarning, match="1 picture.s. directly in .*loose.png"):
            assert len(import_imagefolder(tmp_path / "mine", tmp_path / "out")) == 1

    def test_empty_classes_warn_and_empty_folders_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "mine/cat").mkdir(parents=True)
        with pytest.raises(ImageSetError, match="holds no pictures"):
            import_imagefolder(tmp_path / "mine", tmp_path / "out")
        save(tmp_path / "mine/dog/a.png")
        with pytest.warns(UserWarning, match="1 of 2 classes have no picture: .'cat'"):
            assert import_imagefolder(tmp_path / "mine", tmp_path / "out").labels.tolist() == [1]
        with pytest.raises(ImageSetError, match="not a folder"):
            import_imagefolder(tmp_path / "nowhere", tmp_path / "out2")


class TestWriter:
    def test_the_true_format_names_the_file_and_same_stems_are_told_apart(self, tmp_path: Path) -> None:
        save(tmp_path / "mine/cat/a.png", 0).rename(tmp_path / "mine/cat/a.JPG")
        save(tmp_path / "mine/cat/a.png", 1)
        save(tmp_path / "mine/cat/A ?.png", 2)
        found = import_imagefolder(tmp_path / "mine", tmp_path / "out")
        assert sorted(found.table["path"].to_pylist()) == [f"pictures/cat/{name}.png" for name in ("a-2", "a-3", "a")]

    def test_all_unreadable_pictures_are_listed_and_nothing_is_left(self, tmp_path: Path) -> None:
        folders(tmp_path / "mine", ["cat"], each=4)
        (tmp_path / "mine/cat/1.png").write_bytes(b"")
        (tmp_path / "mine/cat/3.png").write_bytes(b"text")
        with pytest.raises(UnreadablePictures) as caught:
            import_imagefolder(tmp_path / "mine", tmp_path / "out")
        assert [offender.path.name for offender in caught.value.offenders] == ["1.png", "3.png"]
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]
        with pytest.warns(UserWarning, match="2 of 4 picture"):
            found = import_imagefolder(tmp_path / "mine", tmp_path / "out", on_unreadable="skip")
        shows(found, [0, 2])

    def test_what_is_there_is_never_replaced(self, tmp_path: Path) -> None:
        folders(tmp_path / "mine", ["cat"])
        import_imagefolder(tmp_path / "mine", tmp_path / "out")
        with pytest.raises(ImageSetError, match="rm -r"):
            import_imagefolder(tmp_path / "mine", tmp_path / "out")
        (tmp_path / "empty").mkdir()
        assert len(import_imagefolder(tmp_path / "mine", tmp_path / "empty")) == 2

    def test_links_and_references_copy_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seeds = folders(tmp_path / "mine", ["cat"])
        source = tmp_path / "mine/cat/0.png"
        hard = import_imagefolder(tmp_path / "mine", tmp_path / "hard", link=True)
        assert hard.paths[0].samefile(source)
        assert not hard.paths[0].is_symlink()
        referenced = import_imagefolder(tmp_path / "mine", tmp_path / "reference", link="reference")
        assert referenced.table["path"].to_pylist()[0] == str(source)
        assert not (tmp_path / "reference/pictures").exists()

        def refused(*_: Any) -> None:
            raise OSError("another file system")

        monkeypatch.setattr(os, "link", refused)
        soft = import_imagefolder(tmp_path / "mine", tmp_path / "soft", link=True)
        assert soft.paths[0].is_symlink()
        for found in (hard, referenced, soft):
            shows(found, seeds)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [({"origin": "drawn"}, "'generated'"), ({"link": "copy"}, "reference"), ({"on_unreadable": "x"}, "skip")],
    )
    def test_unknown_settings_are_refused(self, tmp_path: Path, settings: Any, message: str) -> None:
        folders(tmp_path / "mine", ["cat"], each=1)
        with pytest.raises(ImageSetError, match=message):
            import_imagefolder(tmp_path / "mine", tmp_path / "out", **settings)


class TestTable:
    def test_csv_with_awkward_classes(self, tmp_path: Path) -> None:
        names = list(dict.fromkeys(AWKWARD))
        with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.writer(stream)
            writer.writerow(["path", "caption", "label", "seed", "aesthetic"])
            for seed, name in enumerate(names):
                save(tmp_path / f"in/{seed}.png", seed)
                writer.writerow([f"in/{seed}.png", f'a "{name}", drawn', name, seed, "high"])
        found = import_table(tmp_path / "list.csv", tmp_path / "out")
        assert found.class_names == names
        assert found.labels.tolist() == list(range(len(names)))
        assert found.captions[0] == ['a "F-16A/B", drawn']
        assert found.table["seed"].to_pylist() == list(range(len(names)))
        assert set(found.table["aesthetic"].to_pylist()) == {"high"}
        shows(found, list(range(len(names))))

    def test_json_lines_with_several_captions_and_classes_by_number(self, tmp_path: Path) -> None:
        rows: list[dict[str, Any]] = [
            {"file_name": "0.png", "text": ["one", "two"], "label": 1, "id": "x", "score": 0.5},
            {"file_name": "1.png", "text": "three", "label": None, "score": "none"},
            {"file_name": "0.png", "text": "four", "label": 1},
        ]
        for seed in (0, 1):
            save(tmp_path / "in" / f"{seed}.png", seed)
        (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
        settings: dict[str, Any] = {"root": tmp_path / "in", "classes": ["missile", "missile"]}
        found = silent(import_table, tmp_path / "list.jsonl", tmp_path / "out", **settings)
        assert found.labels.tolist() == [1, -1]
        assert [item.label for item in found.classes] == ["missile", "missile-2"]
        assert found.captions == [["one", "two", "four"], ["three"]]
        assert found.ids == ["x", "_unlabelled/1"]
        assert found.table["score"].to_pylist() == ["0.5", "none"]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "no rows"),
            ("picture\na.png\n", "no column of paths; it has .'picture'.*path_column='picture'"),
            ("path,label\na.png,b,c\n", "line 2: the number of fields"),
            ("path,label\nhttps://x/a.png,b\n", "line 2: path must be the path of a file"),
            ("path,seed\na.png,seven\n", "line 2: seed must be a number"),
            ("path,label\na.png,b\na.png,c\n", "line 3: a.png has another label"),
        ],
    )
    def test_faults_are_named_with_their_line(self, tmp_path: Path, content: str, message: str) -> None:
        (tmp_path / "list.csv").write_text(content)
        with pytest.raises(ImageSetError, match=message):
            import_table(tmp_path / "list.csv", tmp_path / "out")

    def test_other_faults(self, tmp_path: Path) -> None:
        (tmp_path / "list.csv").write_text("path,label\na.png,b\n")
        with pytest.raises(ImageSetError, match="no column 'file'"):
            import_table(tmp_path / "list.csv", tmp_path / "out", path_column="file")
        with pytest.raises(ImageSetError, match="'b' is not among the 1 classes"):
            import_table(tmp_path / "list.csv", tmp_path / "out", classes=["c"])
        with pytest.raises(UnreadablePictures, match="does not exist"):
            import_table(tmp_path / "list.csv", tmp_path / "out")
        (tmp_path / "list.jsonl").write_text('{"path": "a.png"}\n{"path"\n')
        with pytest.raises(ImageSetError, match="line 2: not JSON"):
            import_table(tmp_path / "list.jsonl", tmp_path / "out")
        (tmp_path / "list.xls").write_text("")
        with pytest.raises(ImageSetError, match=r"must end in \.csv"):
            import_table(tmp_path / "list.xls", tmp_path / "out")


class TestCoco:
    @pytest.fixture
    def pictures(self, tmp_path: Path) -> Path:
        for seed in range(3):
            save(tmp_path / f"coco/val2014/COCO_{seed}.png", seed)
        return tmp_path / "coco"

    def test_karpathy_splits(self, tmp_path: Path, pictures: Path) -> None:
        images = [
            {
                "filepath": "val2014",
                "filename": f"COCO_{seed}.png",
                "split": split,
                "sentences": [{"raw": f"An F-16A/B, {seed}.\n"}, {"raw": "Ein Bär."}],
            }
            for seed, split in enumerate(["train", "restval", "test"])
        ]
        file = tmp_path / "dataset_coco.json"
        file.write_text(json.dumps({"images": images, "dataset": "coco"}))
        found = import_coco(file, pictures, tmp_path / "test", split="test")
        assert found.captions == [["An F-16A/B, 2.", "Ein Bär."]]
        shows(found, [2])
        found = import_coco(file, pictures, tmp_path / "train", split=["train", "restval"])
        assert found.table["split"].to_pylist() == ["train", "restval"]
        assert found.labels.tolist() == [-1, -1]
        assert len(import_coco(file, pictures, tmp_path / "all")) == 3
        with pytest.raises(ImageSetError, match=r"no split \['val'\]; it has \['restval', 'test', 'train'\]"):
            import_coco(file, pictures, tmp_path / "val", split="val")

    def test_plain_captions(self, tmp_path: Path, pictures: Path) -> None:
        content = {
            "images": [{"id": 10 + seed, "file_name": f"COCO_{seed}.png"} for seed in range(2)],
            "annotations": [{"image_id": 11, "caption": "second "}, {"image_id": 11, "caption": "again"}],
        }
        file = tmp_path / "captions_val2014.json"
        file.write_text(json.dumps(content))
        with pytest.warns(UserWarning, match="1 of 2 pictures .* no caption"):
            found = import_coco(file, pictures / "val2014", tmp_path / "out")
        assert found.captions == [[], ["second", "again"]]
        shows(found, [0, 1])
        with pytest.raises(ImageSetError, match="one file a split"):
            import_coco(file, pictures, tmp_path / "b", split="val")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[]", 'no list "images"'),
            ("{", "not JSON"),
            ('{"images": [{"id": 1, "file_name": "a"}]}', "image_info"),
            ('{"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": []}]}', "no captions"),
            ('{"images": [{"id": 1}], "annotations": []}', "lacks 'file_name'"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path: Path, content: str, message: str) -> None:
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(ImageSetError, match=message):
            import_coco(tmp_path / "a.json", tmp_path, tmp_path / "out")


def silent(call: Any, *arguments: Any, **settings: Any) -> ImageSet:
    """The call's image set; that classes are empty in a small copy is not what the test is about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"1 of \d+ classes have no picture")
        return call(*arguments, **settings)


class TestCoop:
    @pytest.mark.parametrize("name", [name for name, layout in COOP_DATASETS.items() if layout.split_file])
    def test_split_files(self, tmp_path: Path, name: str) -> None:
        layout = COOP_DATASETS[name]
        home = tmp_path / "data" / layout.folder
        for seed in range(3):
            save(home / layout.pictures / f"deep/{seed}.png", seed)
        content = {
            "train": [["deep/0.png", 1, "F-16A/B"]],
            "val": [["deep/1.png", 2, "only in val"]],
            "test": [["deep/2.png", 0, "F/A-18"], ["deep/0.png", 1, "F-16A/B"]],
        }
        assert layout.split_file is not None
        (home / layout.split_file).write_text(json.dumps(content))
        found = silent(import_coop, name, tmp_path / "data", tmp_path / "out")
        assert found.class_names == ["F/A-18", "F-16A/B", "only in val"]
        assert found.labels.tolist() == [0, 1]
        shows(found, [2, 0])

    def test_aircraft_by_the_order_of_its_variants(self, tmp_path: Path) -> None:
        home = tmp_path / "fgvc_aircraft"
        for seed in range(2):
            save(home / f"images/000{seed}.jpg", seed)
        (home / "variants.txt").write_text("F/A-18\nF-16A/B\n707-320\n")
        (home / "images_variant_test.txt").write_text("0001 F-16A/B\n0000 F/A-18\n")
        found = silent(import_coop, "fgvc_aircraft", home, tmp_path / "out")
        assert found.class_names == ["F/A-18", "F-16A/B", "707-320"]
        assert found.labels.tolist() == [1, 0]
        (home / "images_variant_val.txt").write_text("0001 F-16\n")
        with pytest.raises(ImageSetError, match=r"variants.txt does not have: \['F-16'\]"):
            import_coop("fgvc_aircraft", home, tmp_path / "b", split="val")

    def test_imagenet_with_two_classes_of_one_name(self, tmp_path: Path) -> None:
        home = tmp_path / "imagenet"
        for seed, folder in enumerate(["n01", "n02"]):
            save(home / f"images/val/{folder}/{seed}.png", seed)
            save(home / f"images/train/{folder}/{seed}.png", 10 + seed)
        (home / "classnames.txt").write_text("n01 missile\nn02 missile\n")
        found = import_coop("imagenet", tmp_path, tmp_path / "out")
        assert found.class_names == ["missile", "missile"]
        assert [item.label for item in found.classes] == ["missile", "missile-2"]
        shows(found, [0, 1])
        shows(import_coop("imagenet", tmp_path, tmp_path / "train", split="train"), [10, 11])

    def test_faults(self, tmp_path: Path) -> None:
        with pytest.raises(ImageSetError, match="caltech-101, dtd"):
            import_coop("cifar10", tmp_path, tmp_path / "out")
        with pytest.raises(ImageSetError, match="train, val, test"):
            import_coop("dtd", tmp_path, tmp_path / "out", split="all")  # type: ignore[arg-type]
        with pytest.raises(ImageSetError, match=r"split_zhou_DescribableTextures.json is not there"):
            import_coop("dtd", tmp_path, tmp_path / "out")
        file = tmp_path / "split_zhou_DescribableTextures.json"
        file.write_text(json.dumps({"train": [["a", 0, "x"]], "val": [["a", 0, "y"]], "test": []}))
        with pytest.raises(ImageSetError, match="called both 'x' and 'y'"):
            import_coop("dtd", tmp_path, tmp_path / "out")
        file.write_text(json.dumps({"train": [["a", 1, "x"]], "test": []}))
        with pytest.raises(ImageSetError, match="without gaps"):
            import_coop("dtd", tmp_path, tmp_path / "out")


class TestHuggingFace:
    def dataset(self, names: list[str]) -> Any:
        import datasets

        pictures = [smooth(24, 20, seed) for seed in range(len(names))]
        features = datasets.Features(
            {
                "image": datasets.Image(),
                "label": datasets.ClassLabel(names=names),
                "captions": datasets.List(datasets.Value("string")),
                "seed": datasets.Value("int64"),
                "weight": datasets.Value("float32"),
            }
        )
        rows = {
            "image": pictures,
            "label": [*range(len(names) - 1), -1],
            "captions": [[name, "again"] for name in names],
            "seed": list(range(len(names))),
            "weight": [0.5] * len(names),
        }
        return datasets.Dataset.from_dict(rows, features=features)

    def test_a_dataset_on_disk_keeps_its_awkward_classes(self, tmp_path: Path) -> None:
        names = list(dict.fromkeys(AWKWARD))
        self.dataset(names).save_to_disk(str(tmp_path / "data"))
        found = silent(import_huggingface, tmp_path / "data", tmp_path / "out")
        assert found.class_names == names
        assert found.labels.tolist() == [*range(len(names) - 1), -1]
        assert found.captions[1] == ["F/A-18", "again"]
        assert found.table["seed"].to_pylist() == list(range(len(names)))
        assert found.table["weight"].to_pylist() == [0.5] * len(names)
        shows(found, list(range(len(names))))

    def test_splits_columns_and_faults(self, tmp_path: Path) -> None:
        import datasets

        both = datasets.DatasetDict({"train": self.dataset(["a", "b"]), "test": self.dataset(["a", "b"])})
        both.save_to_disk(str(tmp_path / "data"))
        with pytest.raises(ImageSetError, match=r"\['train', 'test'\]: split='train'"):
            import_huggingface(tmp_path / "data", tmp_path / "out")
        settings = {"split": "test", "label_column": "label", "image_column": "image", "caption_column": "captions"}
        assert len(silent(import_huggingface, tmp_path / "data", tmp_path / "out", **settings)) == 2
        with pytest.raises(ImageSetError, match="no column 'text'"):
            import_huggingface(both["train"], tmp_path / "b", caption_column="text")
        with pytest.raises(ImageSetError, match="no Image feature"):
            import_huggingface(both["train"].remove_columns("image"), tmp_path / "b")
        with pytest.raises(ImageSetError, match="load_dataset"):
            import_huggingface("someone/something", tmp_path / "b")


class TestWebDataset:
    def set_of(self, tmp_path: Path) -> ImageSet:
        with (tmp_path / "list.jsonl").open("w") as stream:
            for seed in range(len(AWKWARD)):
                save(tmp_path / f"in/{seed}.png", seed)
                row = {"path": f"in/{seed}.png", "label": seed, "captions": [f"über {seed}", "b"], "id": f"row {seed}"}
                row |= {"prompt": f"a {AWKWARD[seed]}", "seed": seed, "score": seed / 4, "guidance": 7.5}
                stream.write(json.dumps(row) + "\n")
        return import_table(tmp_path / "list.jsonl", tmp_path / "set", classes=AWKWARD, origin="generated")

    def test_out_and_in_again_is_the_same_set(self, tmp_path: Path) -> None:
        there = self.set_of(tmp_path)
        shards = export_webdataset(there, tmp_path / "tars", shard_size=6)
        assert [shard.name for shard in shards] == ["000000.tar", "000001.tar", "000002.tar"]
        back = import_webdataset(tmp_path / "tars", tmp_path / "back")
        assert back.fingerprint == there.fingerprint
        assert back.classes == there.classes
        assert back.class_names == list(AWKWARD)
        assert back.table.drop_columns("path").equals(there.table.drop_columns("path").select(
            [name for name in back.table.column_names if name != "path"]
        ))  # fmt: skip
        shows(back, list(range(len(AWKWARD))))

    def test_the_tars_alone_still_know_the_names(self, tmp_path: Path) -> None:
        there = self.set_of(tmp_path)
        shard = export_webdataset(there, tmp_path / "tars")[0]
        shutil.move(shard, tmp_path / "alone.tar")
        back = import_webdataset(tmp_path / "alone.tar", tmp_path / "back")
        assert back.class_names == list(AWKWARD)
        assert back.labels.tolist() == there.labels.tolist()

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
    def test_webdataset_reads_the_tars(self, tmp_path: Path) -> None:
        webdataset = pytest.importorskip("webdataset")
        shard = export_webdataset(self.set_of(tmp_path), tmp_path / "tars")[0]
        samples = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode("rgb"))
        assert len(samples) == len(AWKWARD)
        assert samples[3]["cls"] == 3
        assert samples[3]["txt"] == "über 3"
        assert samples[3]["json"]["class_name"] == ".."
        assert samples[3]["png"].shape == (20, 24, 3)

    def test_a_foreign_tar(self, tmp_path: Path) -> None:
        for seed in range(2):
            save(tmp_path / f"in/../in/deep/{seed}.png", seed)
            (tmp_path / f"in/deep/{seed}.txt").write_text(f"caption {seed}")
            (tmp_path / f"in/deep/{seed}.cls").write_text(str(2 * seed))
        with tarfile.open(tmp_path / "foreign.tar.gz", "w:gz") as tar:
            for path in sorted((tmp_path / "in/deep").iterdir()):
                tar.add(path, f"../../{path.name}")
        with pytest.warns(UserWarning, match="1 of 3 classes"):
            found = import_webdataset(tmp_path / "foreign.tar.gz", tmp_path / "out")
        assert found.class_names == ["0", "1", "2"]
        assert found.captions == [["caption 0"], ["caption 1"]]
        shows(found, [0, 1])
        with pytest.raises(ImageSetError, match="class 2, but there are 2 class names"):
            import_webdataset(tmp_path / "foreign.tar.gz", tmp_path / "b", classes=["x", "y"])

    def test_faults(self, tmp_path: Path) -> None:
        with pytest.raises(ImageSetError, match="does not exist"):
            import_webdataset(tmp_path / "none.tar", tmp_path / "out")
        with pytest.raises(ImageSetError, match=r"no .tar file"):
            import_webdataset(tmp_path, tmp_path / "out")
        there = self.set_of(tmp_path)
        shard = export_webdataset(there, tmp_path / "tars")[0]
        torn = tmp_path / "torn.tar"
        torn.write_bytes(shard.read_bytes()[:2000])
        with pytest.raises(ImageSetError, match="not a whole tar"):
            import_webdataset(torn, tmp_path / "out")
        with pytest.raises(ImageSetError, match="exists already"):
            export_webdataset(there, tmp_path / "tars")
        there.paths[0].unlink()
        with pytest.raises(ImageSetError, match=r"1 picture.s. .*missing"):
            export_webdataset(there, tmp_path / "more")


def test_a_set_of_cmyk_and_animated_pictures_passes(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    Image.new("CMYK", (9, 9)).save(tmp_path / "mine/a.jpg")
    frames = [Image.new("RGB", (9, 9), shade) for shade in ("red", "blue")]
    frames[0].save(tmp_path / "mine/b.gif", save_all=True, append_images=frames[1:])
    found = import_imagefolder(tmp_path / "mine", tmp_path / "out")
    assert [path.suffix for path in found.paths] == [".jpg", ".gif"]
