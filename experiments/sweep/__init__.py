"""Many runs from one grid: what to run, where it stands, and how it goes on."""
