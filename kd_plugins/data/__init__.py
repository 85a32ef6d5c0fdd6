"""Datasets that degrade photos as they are read, read degraded ones, or join tasks; importing this registers them with BasicSR."""

from kd_plugins.data import blur as blur  # these register degradations
from kd_plugins.data import downsample as downsample
from kd_plugins.data import rain as rain
from kd_plugins.data.dataset_options import channels_of, is_unlabelled, task_blocks
from kd_plugins.data.dataset_registration import Phase, register_dataset
from kd_plugins.data.degradations import DEGRADATION_REGISTRY, Degradation, build_degradation
from kd_plugins.data.degraded_image_dataset import DegradedImageDataset
from kd_plugins.data.degraded_photo_dataset import DegradedPhotoDataset
from kd_plugins.data.photos import BUILTIN, Photo, find_photos
from kd_plugins.data.task_dataset import TaskDataset

__all__ = [
    "BUILTIN",
    "DEGRADATION_REGISTRY",
    "Degradation",
    "DegradedImageDataset",
    "DegradedPhotoDataset",
    "Phase",
    "Photo",
    "TaskDataset",
    "build_degradation",
    "channels_of",
    "find_photos",
    "is_unlabelled",
    "register_dataset",
    "task_blocks",
]
