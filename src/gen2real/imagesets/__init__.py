"""Image sets: a folder of pictures and `manifest.parquet`. Importers, decoding, transforms, loading and sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gen2real.late import late

if TYPE_CHECKING:
    from gen2real.imagesets.decoding import check_pictures as check_pictures
    from gen2real.imagesets.decoding import decode as decode
    from gen2real.imagesets.decoding import is_blank as is_blank
    from gen2real.imagesets.hashing import hamming_distance as hamming_distance
    from gen2real.imagesets.hashing import perceptual_hash as perceptual_hash
    from gen2real.imagesets.hashing import perceptual_hash_views as perceptual_hash_views
    from gen2real.imagesets.importers import ImportedBenchmark as ImportedBenchmark
    from gen2real.imagesets.importers import ImportedSamples as ImportedSamples
    from gen2real.imagesets.importers import export_webdataset as export_webdataset
    from gen2real.imagesets.importers import import_benchmark as import_benchmark
    from gen2real.imagesets.importers import import_coco as import_coco
    from gen2real.imagesets.importers import import_coop as import_coop
    from gen2real.imagesets.importers import import_huggingface as import_huggingface
    from gen2real.imagesets.importers import import_imagefolder as import_imagefolder
    from gen2real.imagesets.importers import import_llava as import_llava
    from gen2real.imagesets.importers import import_mmc4 as import_mmc4
    from gen2real.imagesets.importers import import_pairs as import_pairs
    from gen2real.imagesets.importers import import_questions as import_questions
    from gen2real.imagesets.importers import import_table as import_table
    from gen2real.imagesets.importers import import_vist as import_vist
    from gen2real.imagesets.importers import import_webdataset as import_webdataset
    from gen2real.imagesets.interleaved import Interleaved as Interleaved
    from gen2real.imagesets.interleaved import Slice as Slice
    from gen2real.imagesets.interleaved import Turn as Turn
    from gen2real.imagesets.interleaved import read_interleaved as read_interleaved
    from gen2real.imagesets.interleaved import slices as slices
    from gen2real.imagesets.interleaved import write_interleaved as write_interleaved
    from gen2real.imagesets.loading import Pictures as Pictures
    from gen2real.imagesets.loading import prefetch as prefetch
    from gen2real.imagesets.manifest import ClassName as ClassName
    from gen2real.imagesets.manifest import ImageSet as ImageSet
    from gen2real.imagesets.pairs import Pairs as Pairs
    from gen2real.imagesets.pairs import pair_up as pair_up
    from gen2real.imagesets.questions import PictureQuestion as PictureQuestion
    from gen2real.imagesets.questions import read_questions as read_questions
    from gen2real.imagesets.questions import write_questions as write_questions
    from gen2real.imagesets.sampling import EpochSampler as EpochSampler
    from gen2real.imagesets.slugs import slug as slug
    from gen2real.imagesets.slugs import unique_slugs as unique_slugs
    from gen2real.imagesets.transforms import Augmentation as Augmentation
    from gen2real.imagesets.transforms import Preprocess as Preprocess

# Looked up on first use: torch, pyarrow and Pillow are not paid for by whoever only asks for help.
_WHERE = {
    "Augmentation": "transforms",
    "ClassName": "manifest",
    "EpochSampler": "sampling",
    "ImageSet": "manifest",
    "ImportedBenchmark": "importers",
    "ImportedSamples": "importers",
    "Interleaved": "interleaved",
    "Pairs": "pairs",
    "PictureQuestion": "questions",
    "Pictures": "loading",
    "Preprocess": "transforms",
    "Slice": "interleaved",
    "Turn": "interleaved",
    "check_pictures": "decoding",
    "decode": "decoding",
    "export_webdataset": "importers",
    "hamming_distance": "hashing",
    "import_benchmark": "importers",
    "import_coco": "importers",
    "import_coop": "importers",
    "import_huggingface": "importers",
    "import_imagefolder": "importers",
    "import_llava": "importers",
    "import_mmc4": "importers",
    "import_pairs": "importers",
    "import_questions": "importers",
    "import_table": "importers",
    "import_vist": "importers",
    "import_webdataset": "importers",
    "is_blank": "decoding",
    "pair_up": "pairs",
    "perceptual_hash": "hashing",
    "perceptual_hash_views": "hashing",
    "prefetch": "loading",
    "read_interleaved": "interleaved",
    "read_questions": "questions",
    "slices": "interleaved",
    "slug": "slugs",
    "unique_slugs": "slugs",
    "write_interleaved": "interleaved",
    "write_questions": "questions",
}

__all__ = sorted(_WHERE)
__getattr__, __dir__ = late(__name__, _WHERE)
