"""The same work with more and more entries, clients or pending changes."""
