"""Writing files so that a reader never finds half of one, as the functions of tfprune do."""

from tfprune.common.files import check_writable, gzip_size, write_atomically

__all__ = ["check_writable", "gzip_size", "write_atomically"]
