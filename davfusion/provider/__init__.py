"""WebDAV over one Store: translates requests to Store calls and errors back."""
