"""S3Store: one bucket, or what lies below a prefix of it, on any service that speaks S3."""

from davfusion.stores.s3.store import S3Store

__all__ = ["S3Store"]
