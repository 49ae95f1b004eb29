"""Other layouts → image sets: folders, tables, COCO, CoOp's datasets, Hugging Face datasets, WebDataset tars."""

from __future__ import annotations

from gen2real.imagesets.importers.coco import import_coco as import_coco
from gen2real.imagesets.importers.coop import COOP_DATASETS as COOP_DATASETS
from gen2real.imagesets.importers.coop import import_coop as import_coop
from gen2real.imagesets.importers.huggingface import import_huggingface as import_huggingface
from gen2real.imagesets.importers.imagefolder import import_imagefolder as import_imagefolder
from gen2real.imagesets.importers.table import import_table as import_table
from gen2real.imagesets.importers.webdataset import export_webdataset as export_webdataset
from gen2real.imagesets.importers.webdataset import import_webdataset as import_webdataset
