"""Stores: one interface over S3, local folders, memory and whatever comes next."""
