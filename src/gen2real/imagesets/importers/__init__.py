"""Other layouts → image sets: folders, tables, COCO, CoOp's datasets, Hugging Face datasets, WebDataset tars;
and → interleaved samples: LLaVA's conversations, questions, MMC4, VIST, pairs of captions and pictures;
and → files of tasks: public benchmarks.
"""

from __future__ import annotations

from gen2real.imagesets.importers.benchmarks import BENCHMARKS as BENCHMARKS
from gen2real.imagesets.importers.benchmarks import ImportedBenchmark as ImportedBenchmark
from gen2real.imagesets.importers.benchmarks import import_benchmark as import_benchmark
from gen2real.imagesets.importers.caption_pairs import import_pairs as import_pairs
from gen2real.imagesets.importers.coco import import_coco as import_coco
from gen2real.imagesets.importers.conversations import import_questions as import_questions
from gen2real.imagesets.importers.coop import COOP_DATASETS as COOP_DATASETS
from gen2real.imagesets.importers.coop import import_coop as import_coop
from gen2real.imagesets.importers.huggingface import import_huggingface as import_huggingface
from gen2real.imagesets.importers.imagefolder import import_imagefolder as import_imagefolder
from gen2real.imagesets.importers.llava import import_llava as import_llava
from gen2real.imagesets.importers.mmc4 import import_mmc4 as import_mmc4
from gen2real.imagesets.importers.samples import ImportedSamples as ImportedSamples
from gen2real.imagesets.importers.table import import_table as import_table
from gen2real.imagesets.importers.vist import import_vist as import_vist
from gen2real.imagesets.importers.webdataset import export_webdataset as export_webdataset
from gen2real.imagesets.importers.webdataset import import_webdataset as import_webdataset
