"""What stands between the DAV side and a store, on the local disk."""
