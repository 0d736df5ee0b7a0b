"""Races davfusion against other WebDAV servers; docs/performance.md says how to read the result."""
