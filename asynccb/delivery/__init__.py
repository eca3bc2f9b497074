"""What stands between the journal and a tracker's server: delivery that survives a crash."""
