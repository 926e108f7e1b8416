"""What happens over time: one callback, one job."""
