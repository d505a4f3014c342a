"""What weights take when they are coded, and a smaller container for `.tflite` files."""

from tfprune.coding.container import pack, unpack
from tfprune.coding.size_report import CodedSize, CodedTensor, coded_size

__all__ = ["CodedSize", "CodedTensor", "coded_size", "pack", "unpack"]
